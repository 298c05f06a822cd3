"""The ledger is the state of one partition: a fold of its ``decisions`` and of nothing else.

``apply`` is the only mutation. Between ``begin`` and ``commit`` every change is journaled, so a batch that lost the
race for the log is undone by ``rollback``. Tables are pruned at snapshot marks alone, which makes it a function of the
log as well; an idempotency key goes by its own time.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator

from pipeline.admit import policy, snapshot
from pipeline.admit.cells import Cells
from pipeline.admit.end_users import UserAccounts
from pipeline.admit.idempotency import digest_of
from pipeline.admit.journal import UndoJournal
from pipeline.admit.replay_window import ReplayWindow
from pipeline.admit.snapshot import LedgerSnapshot, Reservation
from pipeline.events import lifecycle
from pipeline.events.records import Charge, ControlMark, Decision, Facts, LogRecord, Outcome, SnapshotMark
from pipeline.events.wire import SKEW_MS

SESSION_MS = 4 * SKEW_MS
"""A session that was silent for so long is forgotten: nothing that it sent is young enough to be sent again."""
MAX_SESSIONS = 1_000
"""Sessions of one key at a time."""
_KEYS_IN_TURN = 1024
_ANSWERED = frozenset({"finished", "withheld"})
"""A run that ends so keeps its idempotency key, as its answer stands; any other end frees it for a retry."""


class Ledger:
    """Positions in the sources, quota cells, open reservations, replay windows, idempotency keys, accounts."""

    def __init__(self, stored: LedgerSnapshot | None = None) -> None:
        self._stored = stored = stored or LedgerSnapshot.empty()
        self._journal = UndoJournal()
        self.position = stored.position
        self.cells = Cells(stored.rates, stored.windows, stored.budgets, stored.reserved)
        self.sequences = stored.sequences
        self.open = stored.open
        self.sessions = stored.sessions
        self.idempotency = stored.idempotency
        self.accounts = UserAccounts(stored.accounts, self._journal)
        self.clients: dict[str, tuple[str, ...]] = {}
        """The open requests of a principal by the client's own id, oldest first; a client may use one id again."""
        for reservation in sorted(self.open.values(), key=lambda reservation: reservation.offset):
            self._name(reservation)
        self._position_before = copy.copy(self.position)
        """The position at ``begin``."""
        self._soonest = 0
        """No open reservation has an earlier deadline, so most questions for what is due need no walk."""

    @classmethod
    def load(cls, raw: bytes) -> Ledger:
        """Give the state that ``dump`` wrote. Raises Malformed where a build of another format did."""
        return cls(snapshot.unpack(raw))

    def dump(self) -> bytes:
        """Give the canonical bytes of the whole state."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Give ``dump`` in pieces, between which others may run as long as nothing is applied."""
        return self._stored.pieces()

    def digest(self) -> bytes:
        """Give the SHA-256 of ``dump``."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.digest()

    @property
    def time(self) -> int:
        """The latest time of a record, Unix ms."""
        return self.position.time

    def takes_session(self, key: str, session: str, now: int) -> bool:
        """Tell whether a key may use the session at ``now``, beside those that it has used of late."""
        windows = self.sessions.get(key, {})
        if len(windows) < MAX_SESSIONS or session in windows:
            return True
        return sum(window.time > now - SESSION_MS for window in windows.values()) < MAX_SESSIONS

    def begin(self) -> None:
        """Journal every change from here on."""
        self._journal.begin()
        self._position_before = copy.copy(self.position)

    def commit(self) -> None:
        """Keep the changes since ``begin``."""
        self._journal.commit()

    def rollback(self) -> None:
        """Undo the changes since ``begin``."""
        if self._journal.begun:
            self._journal.rollback()
            self.position = self._stored.position = self._position_before
            self._soonest = 0

    @property
    def _settled(self) -> int:
        """The latest time that no ``rollback`` takes back."""
        return self._position_before.time if self._journal.begun else self.time

    def apply(self, record: LogRecord) -> None:
        """Fold one record in. Raises Fatal, and changes nothing, where its request cannot come to this."""
        match record:
            case Decision():
                self._apply_decision(record)
            case Outcome():
                self._apply_outcome(record)
            case ControlMark():
                self.position.control_version = record.control
                self._advance(record.time)
                self.position.control_time = self.time
            case SnapshotMark():
                for _ in self.apply_mark(record):
                    pass
            case _:
                self._advance(record.time)

    def apply_mark(self, record: SnapshotMark) -> Iterator[None]:
        """Fold a mark in and prune the tables, in turns; between two of them nothing else may be applied."""
        self._advance(record.time)
        for nth, key in enumerate(list(self.sessions), 1):
            self._forget_sessions(key)
            if not nth % _KEYS_IN_TURN:
                yield
        self.idempotency.release(self._settled)
        yield
        self.accounts.forget_users(self.time)
        self.accounts.prune()
        yield from self.cells.prune(self.time, self.position.control_time, self._journal)

    def due(self, now: int, grace_ms: int) -> Iterator[Reservation]:
        """Give the reservations whose deadline and grace are over at ``now``."""
        if self._soonest + grace_ms > now:
            return iter(())
        self._soonest = min((reservation.deadline for reservation in self.open.values()), default=now)
        return (reservation for reservation in self.open.values() if reservation.deadline + grace_ms <= now)

    def _apply_decision(self, record: Decision) -> None:
        facts, position = record.facts, self.position
        is_new = facts.start - facts.skipped == position.next_request and facts.skipped >= 0 and facts.orderly
        state = lifecycle.after("new" if is_new else "closed", record)
        position.next_request = facts.offset + 1
        self._advance(facts.time)
        if facts.session and "replayed" not in record.reasons:
            self._count_session(facts)
        if record.sequence:
            self._journal.put(self.sequences, record.tenant, record.sequence)
        self._charge(record.charges, facts.time)
        if policy.counts(record.verdict, record.reasons):
            self.accounts.judge_all(record.principal, facts)
        if state == "open":
            self._reserve(record)

    def _count_session(self, facts: Facts) -> None:
        windows = self.sessions.get(facts.key, {})
        if len(windows) >= MAX_SESSIONS and facts.session not in windows:
            self._forget_sessions(facts.key)
        if facts.key not in self.sessions:
            self._journal.put(self.sessions, facts.key, {})
        windows = self.sessions[facts.key]
        window = windows.get(facts.session)
        if window is not None:
            self._journal.put(windows, facts.session, window.with_counter(facts.counter, facts.time))
        elif len(windows) < MAX_SESSIONS:
            self._journal.put(windows, facts.session, ReplayWindow(facts.counter, 1, facts.time))

    def _reserve(self, record: Decision) -> None:
        facts = record.facts
        self._soonest = min(self._soonest, facts.deadline)
        reservation = Reservation(
            record.request, facts.offset, facts.time, facts.deadline, record.organisation, record.tenant,
            record.principal, facts.client_request, facts.lane, record.charges, facts.idempotency,
            record.price, record.estimated, facts.input_bound, facts.max_tokens, record.decider,
        )  # fmt: skip
        self._journal.put(self.open, record.request, reservation)
        self._name(reservation)
        if facts.idempotency:
            name = digest_of(record.principal, facts.idempotency)
            self.idempotency.hold(name, facts.offset, self.time, self._journal)
            self.idempotency.release(self._settled)

    def _name(self, reservation: Reservation) -> None:
        name = client_name(reservation.principal, reservation.client_request)
        self._journal.put(self.clients, name, (*self.clients.get(name, ()), reservation.request))

    def _unname(self, reservation: Reservation) -> None:
        name = client_name(reservation.principal, reservation.client_request)
        others = tuple(request for request in self.clients[name] if request != reservation.request)
        if others:
            self._journal.put(self.clients, name, others)
        else:
            self._journal.drop(self.clients, name)

    def _apply_outcome(self, record: Outcome) -> None:
        reservation = self.open.get(record.request)
        lifecycle.after("closed" if reservation is None else "open", record)
        assert reservation is not None
        self._advance(record.time)
        self._journal.put(self.sequences, record.tenant, record.sequence)
        if record.completion >= self.position.next_completion:
            self.position.next_completion = record.completion + 1
        self._charge(record.charges, record.time)
        self._journal.drop(self.open, record.request)
        self._unname(reservation)
        if reservation.idempotency and record.result not in _ANSWERED:
            name = digest_of(reservation.principal, reservation.idempotency)
            self.idempotency.free(name, reservation.offset, self.time, self._journal)

    def _charge(self, charges: tuple[Charge, ...], now: int) -> None:
        for charge in charges:
            self.cells.charge(charge, now, self._journal)

    def _advance(self, time: int) -> None:
        if time > self.position.time:
            self.position.time = time

    def _forget_sessions(self, key: str) -> None:
        last, windows = self.time - SESSION_MS, self.sessions[key]
        for session in [session for session, window in windows.items() if window.time <= last]:
            self._journal.drop(windows, session)
        if not windows:
            self._journal.drop(self.sessions, key)


def client_name(principal: str, client_request: str) -> str:
    """Name an open request as its client does, unique among all principals."""
    return f"{principal}/{client_request}"
