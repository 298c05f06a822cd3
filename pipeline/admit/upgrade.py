"""A partition is lifted to the decider of this build once, at an ``Upgrade`` record in its log.

What lies before is folded and derived by the rules of its time (``decider6``); the ledger is converted by a pure
function, so everyone who folds the log has the same state behind the record. The record bears a link of version 1: a
worker of the build before reads it as valid, cannot make sense of it, and stops instead of deciding on.
"""

from __future__ import annotations

import copy

from pipeline.admit.decider6.ledger import Ledger6, Reservation6
from pipeline.admit.ledger import Ledger
from pipeline.admit.snapshot import LedgerSnapshot, Reservation
from pipeline.errors import Fatal, Malformed
from pipeline.events.records import DECIDER, LEDGER_FORMAT, Charge, LogRecord, Upgrade

AnyLedger = Ledger | Ledger6


def load(raw: bytes) -> AnyLedger:
    """Read a snapshot of this build or of the one before. Raises Malformed."""
    try:
        return Ledger.load(raw)
    except Malformed:
        return Ledger6.load(raw)


def fold(ledger: AnyLedger, record: LogRecord) -> AnyLedger:
    """Fold one record in and give the ledger behind it. Raises Fatal at the mark of a later build."""
    if not isinstance(record, Upgrade):
        ledger.apply(record)
        return ledger
    if record.to != DECIDER:
        raise Fatal(
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
    position = copy.copy(stored.position)
    position.next_request = max(position.next_request, record.requests)
    return Ledger(
        LedgerSnapshot(
            LEDGER_FORMAT,
            position,
            stored.numbers,
            stored.times,
            stored.sequences,
            {name: _reservation(reservation) for name, reservation in stored.open.items()},
            {name: window.converted() for name, window in stored.sessions.items()},
            stored.idempotent,
            stored.accounts,
        )
    )


def _reservation(before: Reservation6) -> Reservation:
    charges = tuple(Charge(c.cell, c.meter, c.unit, c.amount, c.quantity, c.period_ms) for c in before.charges)
    fields = {name: getattr(before, name) for name in before.__struct_fields__}
    return Reservation(**{**fields, "charges": charges})
