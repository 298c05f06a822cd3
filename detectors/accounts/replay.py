"""Accounts read from JSON lines and replayed on one clock, interleaved by time.

A line is `{"session_id", "tenant", "user", "start", "params", "events": [{"t", "text", "params"?}, ...]}`; params that
an event leaves out are those of its account. Texts are turned into traces as they are read and not kept.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from detectors.accounts.campaign import Campaigns
from detectors.accounts.cues import hashed
from detectors.accounts.features import RequestParameters, Trace, trace
from detectors.accounts.judge import CHECK, FIRST, Judge, shipped
from detectors.accounts.rules import CAMPAIGN, KINDS, NONE
from detectors.accounts.signatures import signatures
from detectors.accounts.state import AccountState
from detectors.base import Part

MAX_LINE = 64 << 20
"""Bytes of one line."""
MAX_REQUESTS = 4_000_000
"""Requests of all accounts of one replay; a trace takes about 500 bytes."""
_FARTHEST = 1e11
"""Seconds; later or earlier times are none."""


class MalformedAccount(ValueError):
    """The line is no account. The message tells what was expected, never what came; `session` whose it is, if known."""

    session: str | None = None


class Account(NamedTuple):
    """One account, read: who, and when each request came (ms on the replay clock) and what it shows."""

    session: str
    tenant: int
    requests: list[tuple[int, Trace]]


class AccountVerdict(msgspec.Struct, frozen=True):
    """What the replay found for one account; `alarmed_time` in seconds on the replay clock."""

    session_id: str
    alarmed: bool
    alarmed_at: int | None
    alarmed_time: float | None
    score: float
    kind: str | None
    campaign: str | None


class _Params(msgspec.Struct, frozen=True):
    temperature: float | None = None
    max_tokens: int | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    logit_bias: list[tuple[int, float]] | dict[int, float] | None = None
    n: int | None = None

    def over(self, base: RequestParameters) -> RequestParameters:
        """`base` with what is stated here."""
        return RequestParameters(
            base.temperature if self.temperature is None else self.temperature,
            base.max_tokens if self.max_tokens is None else self.max_tokens,
            base.logprobs if self.logprobs is None else self.logprobs,
            base.top_logprobs if self.top_logprobs is None else self.top_logprobs,
            base.logit_bias if self.logit_bias is None else _pairs(self.logit_bias),
            base.n if self.n is None else self.n,
        )


def _pairs(bias: list[tuple[int, float]] | dict[int, float]) -> tuple[tuple[int, float], ...]:
    """Either form that interfaces of models take: pairs, or an object with tokens for keys."""
    return tuple(bias.items() if isinstance(bias, dict) else bias)


class _AccountEvent(msgspec.Struct, frozen=True):
    t: float
    text: str
    params: _Params | None = None


class _Line(msgspec.Struct, frozen=True):
    session_id: str
    tenant: str
    user: str
    start: float
    events: list[_AccountEvent]
    params: _Params | None = None


class _SessionId(msgspec.Struct):
    session_id: str | None = None


_LINE, _NAMED = msgspec.json.Decoder(_Line), msgspec.json.Decoder(_SessionId)
_BOM = b"\xef\xbb\xbf"


def read(line: bytes) -> Account:
    """The account of one line. Raises Refused."""
    if len(line) > MAX_LINE:
        raise MalformedAccount(f"expected at most {MAX_LINE} bytes in a line")
    found = _decoded(line.removeprefix(_BOM))
    try:
        return _account(found)
    except MalformedAccount as refused:
        refused.session = found.session_id
        raise


def _account(found: _Line) -> Account:
    base = RequestParameters() if found.params is None else found.params.over(RequestParameters())
    requests = []
    for event in found.events:
        at = found.start + event.t
        if not abs(at) <= _FARTHEST or not math.isfinite(at):
            raise MalformedAccount(f"expected times within {_FARTHEST:.0e} seconds")
        sampling = base if event.params is None else event.params.over(base)
        requests.append((round(at * 1000), trace((Part("user", event.text),), sampling)))
    requests.sort(key=lambda request: request[0])
    return Account(found.session_id, hashed(found.tenant, 8), requests)


def _decoded(line: bytes) -> _Line:
    try:
        return _LINE.decode(line)
    except msgspec.ValidationError as error:
        refused = MalformedAccount(_reason(error))
        with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            refused.session = _NAMED.decode(line).session_id
        raise refused from None
    except UnicodeDecodeError as error:
        raise MalformedAccount(_reason(error)) from None
    except (msgspec.DecodeError, RecursionError):
        return _lenient(line)


def _lenient(line: bytes) -> _Line:
    """Accounts with lone surrogates in a text, which JSON's grammar allows and its strict readers refuse."""
    try:
        found = msgspec.convert(json.loads(line), _Line, str_keys=True)
        found.session_id.encode()
        found.tenant.encode()
    except (ValueError, RecursionError) as error:
        raise MalformedAccount(_reason(error)) from None
    return found


def _reason(error: Exception) -> str:
    """What is wrong with a line, without any of its text: msgspec names types and the path to them."""
    return str(error) if isinstance(error, msgspec.ValidationError) else "expected one JSON object in UTF-8"


class _Course:
    """One account on its way through the replay."""

    __slots__ = ("alarmed_at", "alarmed_time", "campaign", "state", "top")

    def __init__(self) -> None:
        self.state = AccountState()
        self.alarmed_at: int | None = None
        self.alarmed_time: int | None = None
        self.campaign: int | None = None
        self.top = -99_000

    def alarm(self, time: int) -> None:
        if self.alarmed_at is None:
            self.alarmed_at, self.alarmed_time = self.state.count, time


def replay(accounts: list[Account], judged: Judge, campaigns: Campaigns[int]) -> list[AccountVerdict]:
    """One answer per account, in order. Requests of equal time are taken in the order of the accounts."""
    courses = [_Course() for _ in accounts]
    for time, at, seen in _clock(accounts):
        course = courses[at]
        course.state, found = judged.update(course.state, seen, time)
        if found:
            course.alarm(time)
        if course.state.count >= FIRST and (course.state.count % CHECK == 0 or found):
            course.top = max(course.top, course.state.score)
            _report(campaigns, courses, at, seen, time)
    return [_answer(account, course) for account, course in zip(accounts, courses, strict=True)]


def _report(campaigns: Campaigns[int], courses: list[_Course], at: int, seen: Trace, time: int) -> None:
    state = courses[at].state
    found = campaigns.report(at, signatures(state, seen), state.score, time)
    if found is None:
        return
    campaign, members = found
    for member in members:
        courses[member].campaign = courses[member].campaign or campaign
        courses[member].alarm(time)


def _clock(accounts: list[Account]) -> Iterator[tuple[int, int, Trace]]:
    order = [
        (time, at, number) for at, account in enumerate(accounts) for number, (time, _) in enumerate(account.requests)
    ]
    order.sort()
    for time, at, number in order:
        yield time, at, accounts[at].requests[number][1]


def _answer(account: Account, course: _Course) -> AccountVerdict:
    state, alarmed = course.state, course.alarmed_at is not None
    kind = state.alarm or (CAMPAIGN if alarmed else NONE)
    return AccountVerdict(
        account.session, alarmed, course.alarmed_at,
        None if course.alarmed_time is None else course.alarmed_time / 1000,
        round(1 / (1 + math.exp(-max(course.top, -30_000) / 1000)), 4),
        KINDS[kind] if alarmed else None,
        None if course.campaign is None else f"{course.campaign:016x}",
    )  # fmt: skip


def answers(lines: Iterable[bytes]) -> Iterator[bytes]:
    """One JSON line per input line, in order, once all lines are read; a line that is no account is answered by why."""
    accounts: list[Account] = []
    places: list[tuple[int, MalformedAccount | None]] = []
    requests = 0
    for line in lines:
        try:
            account = read(line)
            requests += len(account.requests)
            if requests > MAX_REQUESTS:
                requests -= len(account.requests)
                raise MalformedAccount(f"expected at most {MAX_REQUESTS} requests in one replay")
        except MalformedAccount as refused:
            places.append((-1, refused))
            continue
        places.append((len(accounts), None))
        accounts.append(account)
    found = replay(accounts, shipped(), Campaigns())
    for at, why in places:
        answer = found[at] if why is None else {"session_id": why.session, "error": str(why)}
        yield msgspec.json.encode(answer) + b"\n"
