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
"""Seconds; later or earlier times are refused."""
_LOWEST_SCORE = -99_000
"""Score of an account that was never read."""


class MalformedAccount(ValueError):
    """The line is no account. The message tells what was expected, never what the line held; `session` is its id where
    that could be read."""

    session: str | None = None


class Account(NamedTuple):
    """One account as it was read; each request has its time (ms on the replay clock) and its trace."""

    session: str
    tenant: int
    requests: list[tuple[int, Trace]]


class AccountVerdict(msgspec.Struct, frozen=True):
    """The verdict of the replay about one account; `alarmed_time` in seconds on the replay clock."""

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
        """`base` with the parameters that are stated here in the place of its own."""
        return RequestParameters(
            base.temperature if self.temperature is None else self.temperature,
            base.max_tokens if self.max_tokens is None else self.max_tokens,
            base.logprobs if self.logprobs is None else self.logprobs,
            base.top_logprobs if self.top_logprobs is None else self.top_logprobs,
            base.logit_bias if self.logit_bias is None else _pairs(self.logit_bias),
            base.n if self.n is None else self.n,
        )


def _pairs(bias: list[tuple[int, float]] | dict[int, float]) -> tuple[tuple[int, float], ...]:
    """Pairs out of either form that interfaces of models take: pairs, or an object with tokens for keys."""
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
    """The account of one line. Raises MalformedAccount."""
    if len(line) > MAX_LINE:
        raise MalformedAccount(f"expected at most {MAX_LINE} bytes in a line, got more; split the account")
    decoded = _decoded(line.removeprefix(_BOM))
    try:
        return _account(decoded)
    except MalformedAccount as refused:
        refused.session = decoded.session_id
        raise


def _account(line: _Line) -> Account:
    base = RequestParameters() if line.params is None else line.params.over(RequestParameters())
    requests = []
    for event in line.events:
        seconds = line.start + event.t
        if not abs(seconds) <= _FARTHEST or not math.isfinite(seconds):
            raise MalformedAccount(
                f"expected times within {_FARTHEST:.0e} seconds, got one beyond; give seconds since a near day"
            )
        parameters = base if event.params is None else event.params.over(base)
        requests.append((round(seconds * 1000), trace((Part("user", event.text),), parameters)))
    requests.sort(key=lambda request: request[0])
    return Account(line.session_id, hashed(line.tenant, 8), requests)


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
    """The account of a line with lone surrogates in a text, which JSON's grammar allows and strict readers refuse."""
    try:
        read = msgspec.convert(json.loads(line), _Line, str_keys=True)
        read.session_id.encode()
        read.tenant.encode()
    except (ValueError, RecursionError) as error:
        raise MalformedAccount(_reason(error)) from None
    return read


def _reason(error: Exception) -> str:
    """The reason why a line is no account, without any of its text: msgspec names types and the path to them."""
    return str(error) if isinstance(error, msgspec.ValidationError) else "expected one JSON object in UTF-8"


class _Progress:
    """One account on its way through the replay."""

    __slots__ = ("alarmed_at", "alarmed_time", "campaign", "highest_score", "state")

    def __init__(self) -> None:
        self.state = AccountState()
        self.alarmed_at: int | None = None
        self.alarmed_time: int | None = None
        self.campaign: int | None = None
        self.highest_score = _LOWEST_SCORE

    def alarm(self, time: int) -> None:
        if self.alarmed_at is None:
            self.alarmed_at, self.alarmed_time = self.state.count, time


def replay(accounts: list[Account], judge: Judge, campaigns: Campaigns[int]) -> list[AccountVerdict]:
    """One verdict per account, in order. Requests of equal time are taken in the order of the accounts."""
    progress = [_Progress() for _ in accounts]
    for time, index, request in _interleaved(accounts):
        account = progress[index]
        account.state, findings = judge.update(account.state, request, time)
        if findings:
            account.alarm(time)
        if account.state.count >= FIRST and (account.state.count % CHECK == 0 or findings):
            account.highest_score = max(account.highest_score, account.state.score)
            _report(campaigns, progress, index, request, time)
    return [_verdict(account, known) for account, known in zip(accounts, progress, strict=True)]


def _report(campaigns: Campaigns[int], progress: list[_Progress], index: int, request: Trace, time: int) -> None:
    state = progress[index].state
    campaign = campaigns.report(index, signatures(state, request), state.score, time)
    if campaign is None:
        return
    for member in campaign.members:
        progress[member].campaign = progress[member].campaign or campaign.signature
        progress[member].alarm(time)


def _interleaved(accounts: list[Account]) -> Iterator[tuple[int, int, Trace]]:
    """Time, index of the account and trace of all requests, in order of time."""
    order = [
        (time, index, number)
        for index, account in enumerate(accounts)
        for number, (time, _) in enumerate(account.requests)
    ]
    order.sort()
    for time, index, number in order:
        yield time, index, accounts[index].requests[number][1]


def _verdict(account: Account, progress: _Progress) -> AccountVerdict:
    alarmed = progress.alarmed_at is not None
    kind = progress.state.alarm or (CAMPAIGN if alarmed else NONE)
    log_odds = max(progress.highest_score, -30_000) / 1000
    return AccountVerdict(
        session_id=account.session,
        alarmed=alarmed,
        alarmed_at=progress.alarmed_at,
        alarmed_time=None if progress.alarmed_time is None else progress.alarmed_time / 1000,
        score=round(1 / (1 + math.exp(-log_odds)), 4),
        kind=KINDS[kind] if alarmed else None,
        campaign=None if progress.campaign is None else f"{progress.campaign:016x}",
    )


def answers(lines: Iterable[bytes]) -> Iterator[bytes]:
    """One JSON line per input line, in order, once all lines are read; a line that is no account is answered by why."""
    accounts: list[Account] = []
    read_lines: list[int | MalformedAccount] = []
    """Of each line, the index of its account or the reason why it is none."""
    requests = 0
    for line in lines:
        try:
            account = read(line)
            if requests + len(account.requests) > MAX_REQUESTS:
                raise MalformedAccount(
                    f"expected at most {MAX_REQUESTS} requests in one replay, got more; replay fewer accounts at once"
                )
        except MalformedAccount as refused:
            read_lines.append(refused)
            continue
        requests += len(account.requests)
        read_lines.append(len(accounts))
        accounts.append(account)
    verdicts = replay(accounts, shipped(), Campaigns())
    for each in read_lines:
        answer = verdicts[each] if isinstance(each, int) else {"session_id": each.session, "error": str(each)}
        yield msgspec.json.encode(answer) + b"\n"
