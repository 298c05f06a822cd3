"""The status of an account: what its requests amount to, and the step at which it is answered.

`judged` is the whole of it: a pure function of the status, the trace of one request and its time, so a reader of a
partition's log, which holds the traces in order, comes to the same steps. The status travels as bytes, about 1 KB an
account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from detectors.accounts.features import Trace
from detectors.accounts.judge import Judge, finding, of_decider6, reads, shipped
from detectors.accounts.response import AccountResponse, Step, is_above, respond, settle
from detectors.accounts.rules import KINDS, NONE
from detectors.accounts.signatures import signatures
from detectors.accounts.state import AccountState
from detectors.base import Finding

MAX_REQUESTS = 200
"""Requests that are looked at together: the alarm is calibrated on so many, and an account lives longer. A step up
or down uses up what led to it as well, so that an account which was wronged once does not climb on."""
REPORTED = 0
"""Score (thousandths of log-odds) from which on an account is compared with others."""


class AccountStatus(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The status of one account. Stored by position."""

    traffic: AccountState = AccountState()
    response: AccountResponse = AccountResponse()
    kind: int = NONE
    """The kind of the alarm by which it last rose; NONE where it is answered as any other. Stored only where it is one,
    so that statuses of decider 6 keep their bytes."""


class Judgement(NamedTuple):
    """The effect of one request on its account."""

    after: AccountStatus
    findings: tuple[Finding, ...]
    """One where the account went up a step."""
    score: int
    """Thousandths of log-odds, at the last reading."""
    signatures: tuple[int, ...]
    """Hashes to compare the account by; empty unless it was read just now and looks at least a little suspicious."""


JUDGE, JUDGE6 = shipped(), of_decider6()
"""The judge of this build, and that of decider 6."""
INDEX_OF_KIND = {f"extraction.{name}": kind for kind, name in enumerate(KINDS)}
EMPTY_STATE = AccountState()
EMPTY_STATUS = AccountStatus()
"""The status of an account without requests."""


class _TrafficTimes(msgspec.Struct, frozen=True, gc=False, array_like=True):
    count: int = 0
    time: int = 0


class _StatusTimes(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The beginning of an `AccountStatus`, read without the rest."""

    traffic: _TrafficTimes
    response: AccountResponse


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(AccountStatus).decode
_decode_times = msgspec.msgpack.Decoder(_StatusTimes).decode


def pack(status: AccountStatus) -> bytes:
    """The bytes of a status."""
    return _encode(status) if status.kind else _encode((status.traffic, status.response))


def unpack(packed: bytes) -> AccountStatus:
    """The status that `pack` made bytes of."""
    return _decode(packed)


def step_at(status: AccountStatus, time: int) -> Step:
    """The step at which the account is answered at `time` (ms), before its next request is read."""
    return settle(status.response, time).step


def judged(before: AccountStatus, request: Trace, time: int) -> Judgement:
    """The account after one request at `time` (ms), and why it is answered as it is. Pure."""
    judgement = _judged(JUDGE, before, request, time)
    after = judgement.after
    if after.response.step == "observe":
        return judgement
    kind = INDEX_OF_KIND[judgement.findings[0].rule] if judgement.findings else before.kind
    return judgement._replace(after=AccountStatus(after.traffic, after.response, kind))


def judged_by_decider6(before: AccountStatus, request: Trace, time: int) -> Judgement:
    """The account after one request as version 0.1.0 judged it. Pure."""
    return _judged(JUDGE6, before, request, time)


def _judged(judge: Judge, before: AccountStatus, request: Trace, time: int) -> Judgement:
    response = settle(before.response, time)
    came_down = response.step != before.response.step
    past = EMPTY_STATE if came_down or before.traffic.count >= MAX_REQUESTS else before.traffic
    traffic, _ = judge.update(past, request, time)
    signal = judge.signal(past, traffic)
    after = respond(response, signal, time) if signal else response
    escalated = is_above(after.step, response.step)
    shared = signatures(traffic, request) if reads(traffic) and traffic.score >= REPORTED else ()
    findings = (finding(traffic.alarm),) if escalated else ()
    return Judgement(AccountStatus(EMPTY_STATE if escalated else traffic, after), findings, traffic.score, shared)


def last_request(packed: bytes) -> int:
    """The time of an account's latest request; 0 just after a step up, which uses its traffic up."""
    return _decode_times(packed).traffic.time


def last_heard(packed: bytes) -> int:
    """The time at which an account last sent a request or changed its step."""
    times = _decode_times(packed)
    return max(times.traffic.time, times.response.escalated_ms, times.response.last_signal_ms)


def forgotten(accounts: Mapping[str, bytes], most: int, heard: Callable[[bytes], int] = last_heard) -> Sequence[str]:
    """Names of the accounts beyond the `most` that were `heard` of last; of equally old ones the first by name goes."""
    excess = len(accounts) - most
    if excess <= 0:
        return ()
    times = {name: heard(packed) for name, packed in accounts.items()}
    # only the times are sorted as a whole: a partition has many accounts, and everybody waits
    newest_gone = sorted(times.values())[excess - 1]
    before = [name for name, time in times.items() if time < newest_gone]
    as_old = sorted(name for name, time in times.items() if time == newest_gone)
    return [*before, *as_old[: excess - len(before)]]
