"""The ledger of decider 6: stored in format 3, folded as version 0.1.0 folded it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from detectors.accounts.status import last_request
from pipeline.admit.accounts import AccountTable
from pipeline.admit.decider6 import policy
from pipeline.admit.decider6.charge import Charge6, as_written
from pipeline.admit.decider6.quota import Cells6, charged, in_window
from pipeline.admit.decider6.replay_window import ReplayWindow6
from pipeline.admit.journal import UndoJournal
from pipeline.errors import Malformed
from pipeline.events.records import ControlMark, Decision, LogRecord, Outcome, SnapshotMark
from pipeline.events.wire import SKEW_MS

FORMAT = 3
IDEMPOTENCY_MS = 24 * 3600 * 1000


class Reservation6(msgspec.Struct, frozen=True, gc=False):
    """An admitted request waits for its outcome."""

    request: str
    offset: int
    time: int
    deadline: int
    organisation: str
    tenant: str
    principal: str
    client_request: str
    lane: int
    charges: tuple[Charge6, ...]


class Position6(msgspec.Struct):
    """A ledger is folded up to here in each of its sources."""

    next_request: int = msgspec.field(name="requests")
    next_completion: int = msgspec.field(name="completions")
    time: int
    control_version: int = msgspec.field(name="control")


class Snapshot6(msgspec.Struct):
    """The whole state of one partition in format 3."""

    format: int
    position: Position6 = msgspec.field(name="marks")
    numbers: dict[str, int]
    times: dict[str, list[int]]
    sequences: dict[str, int]
    open: dict[str, Reservation6]
    sessions: dict[str, ReplayWindow6]
    idempotent: dict[str, tuple[str, int]]
    accounts: dict[str, bytes]


class Ledger6:
    """The state of one partition under decider 6.

    A second decision for one request sets the position back, as it did then: such logs exist, and they are to be folded
    to where they are.
    """

    def __init__(self, stored: Snapshot6 | None = None) -> None:
        self.stored = stored = stored or Snapshot6(FORMAT, Position6(0, 0, 0, -1), {}, {}, {}, {}, {}, {}, {})
        self.position = stored.position
        self.cells = Cells6(stored.numbers, stored.times)
        self.sequences = stored.sequences
        self.open = stored.open
        self.sessions = stored.sessions
        self.idempotent = stored.idempotent
        self.accounts = AccountTable(stored.accounts, UndoJournal())
        self.answered = max([self.position.next_request, *(r.offset + 1 for r in self.open.values())])
        """No request from here on has a decision, as far as this ledger can tell; the position may lie below."""
        self.clients = {client_name(r.principal, r.client_request): r.request for r in self.open.values()}

    @classmethod
    def load(cls, raw: bytes) -> Ledger6:
        """Read a snapshot. Raises Malformed where it is of another format."""
        try:
            stored = msgspec.json.decode(raw, type=Snapshot6)
        except msgspec.DecodeError as error:
            raise Malformed(f"not a ledger: {error}") from error
        if stored.format != FORMAT:
            raise Malformed(f"expected a ledger of format {FORMAT}, got {stored.format}")
        return cls(stored)

    def dump(self) -> bytes:
        """Give the canonical bytes of the whole state."""
        return msgspec.json.encode(self.stored, order="sorted")

    def digest(self) -> bytes:
        """Give the SHA-256 of ``dump``."""
        return hashlib.sha256(self.dump()).digest()

    @property
    def time(self) -> int:
        """The latest time of a record, Unix ms."""
        return self.position.time

    def apply(self, record: LogRecord) -> None:
        """Fold one record in."""
        match record:
            case Decision():
                self._apply_decision(record)
            case Outcome():
                self._apply_outcome(record)
            case ControlMark():
                self.position.control_version = record.control
                self._advance(record.time)
            case SnapshotMark():
                self._advance(record.time)
                self._prune()
            case _:
                self._advance(record.time)

    def _apply_decision(self, record: Decision) -> None:
        facts = record.facts
        self.position.next_request = facts.offset + 1
        self.answered = max(self.answered, facts.offset + 1)
        self._advance(facts.time)
        if facts.session:
            name = f"{facts.key}/{facts.session}"
            window = self.sessions.get(name)
            if window is None:
                self.sessions[name] = ReplayWindow6(facts.counter, 1, facts.time)
            elif "replayed" not in record.reasons:
                self.sessions[name] = window.with_counter(facts.counter, facts.time)
        if record.sequence:
            self.sequences[record.tenant] = record.sequence
        self._charge(as_written(record.charges), facts.time)
        if policy.counts(record.verdict, record.reasons):
            self.accounts.judge(record.principal, facts)
        if record.verdict == "admit" and facts.kind == "inference":
            self._reserve(record)

    def _reserve(self, record: Decision) -> None:
        facts = record.facts
        self.open[record.request] = Reservation6(
            record.request, facts.offset, facts.time, facts.deadline, record.organisation, record.tenant,
            record.principal, facts.client_request, facts.lane, as_written(record.charges),
        )  # fmt: skip
        self.clients[client_name(record.principal, facts.client_request)] = record.request
        if facts.idempotency:
            self.idempotent[f"{record.principal}/{facts.idempotency}"] = (record.request, facts.time)

    def _apply_outcome(self, record: Outcome) -> None:
        self._advance(record.time)
        reservation = self.open.get(record.request)
        if reservation is None:
            return
        self.sequences[record.tenant] = record.sequence
        if record.completion >= self.position.next_completion:
            self.position.next_completion = record.completion + 1
        self._charge(as_written(record.charges), record.time)
        del self.open[record.request]
        self.clients.pop(client_name(reservation.principal, reservation.client_request), None)

    def _charge(self, charges: tuple[Charge6, ...], now: int) -> None:
        for charge in charges:
            if charge.meter == "window":
                self.cells.times[charge.cell] = in_window(self.cells.times.get(charge.cell, []), charge, now)
            else:
                self.cells.numbers[charge.cell] = charged(self.cells, charge, now)

    def _advance(self, time: int) -> None:
        self.position.time = max(self.position.time, time)

    def _prune(self) -> None:
        now = self.time
        _keep(self.sessions, lambda window: window.time > now - 4 * SKEW_MS)
        _keep(self.idempotent, lambda first: first[1] > now - IDEMPOTENCY_MS)
        self.accounts.prune(last_request)


def client_name(principal: str, client_request: str) -> str:
    """Name an open request as its client does, unique among all principals."""
    return f"{principal}/{client_request}"


def _keep(table: dict[str, Any], wanted: Callable[[Any], bool]) -> None:
    for key in [key for key, value in table.items() if not wanted(value)]:
        del table[key]
