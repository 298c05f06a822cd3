"""A partition is lifted to the decider of this build once, at an ``Upgrade`` record in its log.

What lies before is folded and derived by the rules of its time (``decider6``); the ledger is converted by a pure
function, so everyone who folds the log has the same state behind the record. The record bears a link of version 1: a
worker of the build before reads it as valid, cannot make sense of it, and stops instead of deciding on.
"""

from __future__ import annotations

from collections import defaultdict

from pipeline.admit.decider6.ledger import Ledger6, Reservation6
from pipeline.admit.decider6.replay_window import ReplayWindow6
from pipeline.admit.idempotency import IdempotencyKeys, digest_of, row_of
from pipeline.admit.ledger import Ledger
from pipeline.admit.replay_window import ReplayWindow
from pipeline.admit.snapshot import LedgerPosition, LedgerSnapshot, Reservation
from pipeline.admit.upgrade_cells import converted_cells, converted_charge
from pipeline.errors import Malformed, Unrecoverable
from pipeline.events.records import DECIDER, LogRecord, Upgrade, landed

AnyLedger = Ledger | Ledger6
_RUN = 4096
"""Offsets whose idempotency keys are sorted in one go."""


def load(raw: bytes) -> AnyLedger:
    """Read a snapshot of this build or of the one before. Raises Malformed."""
    try:
        return Ledger.load(raw)
    except Malformed:
        pass
    try:
        return Ledger6.load(raw)
    except RecursionError:
        raise Malformed("not a ledger: values within values without end") from None


def fold(ledger: AnyLedger, record: LogRecord, appended: int) -> AnyLedger:
    """Fold one record in and give the ledger behind it. Raises Unrecoverable at the mark of a later build.

    ``appended`` is the append time of its batch, Unix ms; decider 6 took a tick at its word.
    """
    if not isinstance(record, Upgrade):
        ledger.apply(record if isinstance(ledger, Ledger6) else landed(record, appended))
        return ledger
    if record.to != DECIDER:
        raise Unrecoverable(
            f"the log was lifted to decider {record.to}: expected at most {DECIDER}, which this build knows. Leave the "
            "partition to workers of the newer build, or update this one."
        )
    if isinstance(ledger, Ledger6):
        ledger = converted(ledger, record)
    ledger.apply(record)
    return ledger


def mark(ledger: Ledger6) -> Upgrade:
    """Give the record that lifts a partition to this build."""
    return Upgrade(ledger.time, 6, DECIDER, ledger.answered)


def converted(ledger: Ledger6, record: Upgrade) -> Ledger:
    """Convert a ledger of decider 6.

    That decider could answer a request twice, which set its position back. The record says where deciding goes on, as a
    ledger that was restored from a snapshot may not know.
    """
    stored = ledger.stored
    before = stored.position
    next_request = max(before.next_request, record.requests)
    # from when on the documents hold is not known
    position = LedgerPosition(
        next_request, before.next_completion, before.time, before.control_version, control_time=before.time
    )
    cells = converted_cells(ledger.cells, before.time)
    holders = {request: name for name, (request, _) in stored.idempotent.items()}
    return Ledger(
        LedgerSnapshot(
            position,
            _idempotency(stored.idempotent),
            cells.rates,
            cells.windows,
            cells.budgets,
            cells.reserved,
            stored.sequences,
            {name: _reservation(held, holders.get(name, "")) for name, held in stored.open.items()},
            _sessions(stored.sessions),
            stored.accounts,
        )
    )


def _reservation(before: Reservation6, holder: str) -> Reservation:
    charges = tuple(converted_charge(charge, before.time) for charge in before.charges)
    fields = {name: getattr(before, name) for name in before.__struct_fields__}
    key = holder.removeprefix(f"{before.principal}/")
    return Reservation(**{**fields, "charges": charges, "idempotency": key, "decider": 6})


def _idempotency(before: dict[str, tuple[str, int]]) -> IdempotencyKeys:
    """Convert the keys by principal/key; which of them a failed run holds is not known any more."""
    runs: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for name, (request, _) in before.items():
        offset = int(request.rpartition("-")[2])
        runs[offset // _RUN].append((offset, name))
    rows, time = bytearray(), 0
    # sorted by runs of offsets: sorting a million at once lets no other thread go on meanwhile
    for run in sorted(runs):
        for offset, name in sorted(runs[run]):
            # a second answer of that decider set the time back
            time = max(time, before[name][1])
            principal, _, key = name.partition("/")
            rows += row_of(digest_of(principal, key), offset, time)
    return IdempotencyKeys.load(memoryview(rows))


def _sessions(before: dict[str, ReplayWindow6]) -> dict[str, dict[str, ReplayWindow]]:
    sessions: dict[str, dict[str, ReplayWindow]] = {}
    for name, window in before.items():
        key, _, session = name.partition("/")
        sessions.setdefault(key, {})[session] = window.converted()
    return sessions
