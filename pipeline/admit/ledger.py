"""The state of one partition: a fold of its ``decisions`` and of nothing else. ``apply`` is the only mutation.

Between ``begin`` and ``commit`` every change is journaled, so a batch that lost the race for the log is undone by
``rollback``. Pruning happens at snapshot marks alone, which makes it a function of the log as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from detectors.accounts.features import traced
from detectors.accounts.standing import EMPTY_STATUS, AccountStatus, Judgement, forgotten, judged, pack, unpack
from pipeline.admit import policy
from pipeline.admit.quota import Cells, charged, in_window
from pipeline.admit.replay_window import ReplayWindow
from pipeline.errors import Malformed
from pipeline.events.records import (
    LEDGER_FORMAT,
    Charge,
    ControlMark,
    Decision,
    Facts,
    LogRecord,
    Outcome,
    SnapshotMark,
    Tick,
)
from pipeline.events.wire import SKEW_MS

IDEMPOTENCY_MS = 24 * 3600 * 1000
MAX_ACCOUNTS = 16_384
"""Accounts of one partition that a snapshot keeps, those that were heard of last; about 1 KB each."""
MAX_UNPACKED = 1_024
"""Accounts that are kept unpacked besides, about 5 KB each; those who ask again and again are read from here."""
_ABSENT: Any = object()


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """An admitted request without an outcome."""

    request: str
    offset: int
    time: int
    deadline: int
    organisation: str
    tenant: str
    principal: str
    client_request: str
    lane: int
    charges: tuple[Charge, ...]


class Ledger:
    """Positions in the sources, quota cells, open reservations, replay windows, idempotency keys, accounts."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {"requests": 0, "completions": 0, "time": 0, "control": -1}
        self.cells = Cells()
        self.sequences: dict[str, int] = {}
        self.open: dict[str, Reservation] = {}
        self.clients: dict[str, str] = {}
        self.sessions: dict[str, ReplayWindow] = {}
        self.idempotent: dict[str, tuple[str, int]] = {}
        self.accounts: dict[str, bytes] = {}
        """Principal -> ``detectors.accounts.standing.Standing``, packed."""
        self._known: dict[str, tuple[bytes, AccountStatus]] = {}
        """What was unpacked of ``accounts``, each with its bytes: where those differ, it no longer holds."""
        self._judged: tuple[AccountStatus, Facts, Judgement] | None = None
        """The last judgement: ``apply`` asks for what ``decide`` has just asked for."""
        self._journal: list[tuple[dict[Any, Any], Any, Any]] | None = None
        self._marked = dict(self.marks)
        """The marks at ``begin``."""
        self._soonest = 0
        """No open reservation has an earlier deadline, so most questions for what is due need no walk."""

    @property
    def time(self) -> int:
        return self.marks["time"]

    def begin(self) -> None:
        self._journal, self._marked = [], dict(self.marks)

    def commit(self) -> None:
        self._journal = None

    def rollback(self) -> None:
        """Back to where ``begin`` was called."""
        if self._journal is None:
            return
        journal, self._journal = self._journal, None
        self.marks.update(self._marked)
        self._soonest = 0
        for table, key, old in reversed(journal):
            if old is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = old

    def apply(self, record: LogRecord) -> None:
        """Fold one valid record in."""
        match record:
            case Decision():
                self._decision(record)
            case Outcome():
                self._outcome(record)
            case ControlMark():
                self.marks["control"] = record.control
                self._advance(record.time)
            case Tick():
                self._advance(record.time)
            case SnapshotMark():
                self._advance(record.time)
                self._prune()

    def _decision(self, record: Decision) -> None:
        facts = record.facts
        self.marks["requests"] = facts.offset + 1
        self._advance(facts.time)
        if facts.session:
            name = f"{facts.key}/{facts.session}"
            known = self.sessions.get(name)
            if known is None:
                self._set(self.sessions, name, ReplayWindow(facts.counter, 1, facts.time))
            elif "replayed" not in record.reasons:
                self._set(self.sessions, name, known.with_counter(facts.counter, facts.time))
        if record.sequence:
            self._set(self.sequences, record.tenant, record.sequence)
        self._charge(record.charges, facts.time)
        if policy.counts(record.verdict, record.reasons):
            self.judge(record.principal, facts)
        if record.verdict == "admit" and facts.kind == "inference":
            self._reserve(record)

    def standing(self, principal: str) -> AccountStatus:
        """Where the account of ``principal`` stands."""
        held = self.accounts.get(principal)
        if held is None:
            return EMPTY_STATUS
        known = self._known.get(principal)
        if known is not None and known[0] is held:
            return known[1]
        return self._know(principal, held, unpack(held))

    def _know(self, principal: str, held: bytes, standing: AccountStatus) -> AccountStatus:
        if len(self._known) >= MAX_UNPACKED and principal not in self._known:
            self._known.clear()
        self._known[principal] = held, standing
        return standing

    def judgement(self, principal: str, facts: Facts) -> Judgement | None:
        """What ``facts`` make of the account of ``principal``, which stays as it is; None where its text was not
        read."""
        standing, known = self.standing(principal), self._judged
        if known is not None and known[0] is standing and known[1] is facts:
            return known[2]
        seen = traced(facts.features)
        if seen is None:
            return None
        found = judged(standing, seen, facts.time)
        self._judged = standing, facts, found
        return found

    def judge(self, principal: str, facts: Facts) -> None:
        """Keep what ``judgement`` says."""
        found = self.judgement(principal, facts)
        if found is not None:
            held = pack(found.after)
            self._set(self.accounts, principal, held)
            self._know(principal, held, found.after)

    def _reserve(self, record: Decision) -> None:
        facts = record.facts
        self._soonest = min(self._soonest, facts.deadline)
        held = Reservation(
            record.request, facts.offset, facts.time, facts.deadline, record.organisation, record.tenant,
            record.principal, facts.client_request, facts.lane, record.charges,
        )  # fmt: skip
        self._set(self.open, record.request, held)
        self._set(self.clients, client_name(record.principal, facts.client_request), record.request)
        if facts.idempotency:
            self._set(
                self.idempotent,
                f"{record.principal}/{facts.idempotency}",
                (record.request, facts.time),
            )

    def _outcome(self, record: Outcome) -> None:
        self._advance(record.time)
        held = self.open[record.request]
        self._set(self.sequences, record.tenant, record.sequence)
        if record.completion >= 0:
            self.marks["completions"] = max(self.marks["completions"], record.completion + 1)
        self._charge(record.charges, record.time)
        self._drop(self.open, record.request)
        self._drop(self.clients, client_name(held.principal, held.client_request))

    def _charge(self, charges: tuple[Charge, ...], now: int) -> None:
        for charge in charges:
            if charge.meter == "window":
                times = in_window(self.cells.times.get(charge.cell, []), charge, now)
                self._set(self.cells.times, charge.cell, times)
            else:
                self._set(self.cells.numbers, charge.cell, charged(self.cells, charge, now))

    def _advance(self, time: int) -> None:
        if time > self.marks["time"]:
            self.marks["time"] = time

    def _prune(self) -> None:
        now = self.time
        _keep(self, self.sessions, lambda s: s.time > now - 4 * SKEW_MS)
        _keep(self, self.idempotent, lambda held: held[1] > now - IDEMPOTENCY_MS)
        for principal in forgotten(self.accounts, MAX_ACCOUNTS):
            self._drop(self.accounts, principal)

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if self._journal is not None:
            self._journal.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Any) -> None:
        if self._journal is not None and key in table:
            self._journal.append((table, key, table[key]))
        table.pop(key, None)

    def dump(self) -> bytes:
        """Canonical bytes of the whole state."""
        return msgspec.json.encode(
            _Image(
                LEDGER_FORMAT,
                self.marks,
                self.cells.numbers,
                self.cells.times,
                self.sequences,
                self.open,
                self.sessions,
                self.idempotent,
                self.accounts,
            ),
            order="sorted",
        )

    @classmethod
    def load(cls, raw: bytes) -> Ledger:
        """The state that ``dump`` wrote. Raises Malformed where a build of another format did."""
        try:
            image = msgspec.json.decode(raw, type=_Image)
        except msgspec.DecodeError as error:
            raise Malformed(f"not a ledger: {error}") from error
        if image.format != LEDGER_FORMAT:
            raise Malformed(f"expected a ledger of format {LEDGER_FORMAT}, got {image.format}")
        ledger = cls()
        ledger.marks, ledger.sequences, ledger.open = image.marks, image.sequences, image.open
        ledger.cells = Cells(image.numbers, image.times)
        ledger.sessions, ledger.idempotent, ledger.accounts = (
            image.sessions,
            image.idempotent,
            image.accounts,
        )
        ledger.clients = {client_name(r.principal, r.client_request): r.request for r in image.open.values()}
        return ledger

    def digest(self) -> bytes:
        return hashlib.sha256(self.dump()).digest()

    def due(self, now: int, grace_ms: int) -> Iterator[Reservation]:
        """Reservations whose deadline and grace are over at ``now``."""
        if self._soonest + grace_ms > now:
            return iter(())
        self._soonest = min((held.deadline for held in self.open.values()), default=now)
        return (held for held in self.open.values() if held.deadline + grace_ms <= now)


def client_name(principal: str, client_request: str) -> str:
    return f"{principal}/{client_request}"


def _keep(ledger: Ledger, table: dict[str, Any], wanted: Any) -> None:
    for key in [key for key, value in table.items() if not wanted(value)]:
        ledger._drop(table, key)


class _Image(msgspec.Struct):
    format: int
    marks: dict[str, int]
    numbers: dict[str, int]
    times: dict[str, list[int]]
    sequences: dict[str, int]
    open: dict[str, Reservation]
    sessions: dict[str, ReplayWindow]
    idempotent: dict[str, tuple[str, int]]
    accounts: dict[str, bytes]
