"""Where an account stands: what its requests amount to, and the step at which it is answered.

`judged` is the whole of it: a pure function of what is held of the account, the trace of one request and its time. So
whoever holds the traces of a partition in order, in a log say, comes to the same steps. What is held travels as bytes,
about 1 KB an account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from detectors.accounts.features import Trace
from detectors.accounts.judge import finding, reads, shipped
from detectors.accounts.response import STEPS, AccountResponse, Step, respond, settle
from detectors.accounts.signatures import signatures
from detectors.accounts.state import AccountState
from detectors.base import Finding

MOST = 200
"""Requests that are looked at together: the alarm is calibrated on so many, and an account lives longer. A step up
or down uses up what led to it as well, so that whoever was wronged once does not climb on."""
REPORTED = 0
"""Score (thousandths of log-odds) from which on an account is compared with others."""


class AccountStatus(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is held of one account."""

    traffic: AccountState = AccountState()
    response: AccountResponse = AccountResponse()


class Judgement(NamedTuple):
    """What one request makes of its account."""

    after: AccountStatus
    findings: tuple[Finding, ...]
    """One where the account rose to another step."""
    score: int
    """Thousandths of log-odds, at the last reading."""
    signatures: tuple[int, ...]
    """What to compare the account by; empty unless it was read just now and looks at least a little suspicious."""


JUDGE = shipped()
EMPTY_STATE = AccountState()
EMPTY_STATUS = AccountStatus()
"""An account that was never heard of."""
pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AccountStatus).decode


def unpack(held: bytes) -> AccountStatus:
    """The standing that `pack` made bytes of."""
    return _decode(held)


def step_at(standing: AccountStatus, time: int) -> Step:
    """The step at which the account is answered at `time` (ms), before its next request is read."""
    return settle(standing.response, time).step


def judged(before: AccountStatus, seen: Trace, time: int) -> Judgement:
    """The account after one request at `time` (ms). Pure."""
    response = settle(before.response, time)
    came_down = response.step != before.response.step
    past = EMPTY_STATE if came_down or before.traffic.count >= MOST else before.traffic
    traffic, _ = JUDGE.update(past, seen, time)
    heard = JUDGE.heard(past, traffic)
    after = respond(response, heard, time) if heard else response
    rose = after.step != response.step and STEPS.index(after.step) > STEPS.index(response.step)
    shared = signatures(traffic, seen) if reads(traffic) and traffic.score >= REPORTED else ()
    found = (finding(traffic.alarm),) if rose else ()
    return Judgement(AccountStatus(EMPTY_STATE if rose else traffic, after), found, traffic.score, shared)


def forgotten(accounts: Mapping[str, bytes], most: int) -> Sequence[str]:
    """Names of the accounts beyond the `most` that were heard of last; of equally old ones the first by name goes."""
    if len(accounts) <= most:
        return ()
    return sorted(accounts, key=lambda name: (unpack(accounts[name]).traffic.time, name))[: len(accounts) - most]
