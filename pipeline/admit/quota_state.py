"""A gateway that waits is told what a decision left of the caller's limits; no record of the log repeats it."""

from __future__ import annotations

from pipeline.admit.callers import caller_of, ceilings_over
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota import remaining
from pipeline.events.control import Control
from pipeline.events.limits import QuotaState
from pipeline.events.records import Decision


def quota_state(ledger: Ledger, control: Control, decision: Decision) -> QuotaState | None:
    """Give what is left of the limits over the caller right behind ``decision``; None where no gateway waits for it.

    A record that was not read or not signed is told nothing. Nor is the partition's capacity, which is no caller's.
    """
    facts = decision.facts
    if facts.lane < 0 or facts.fault or facts.kind != "inference":
        return None
    caller = caller_of(control, facts.key)
    if caller is None:
        return None
    ceilings = ceilings_over(control, caller, facts.model)
    return QuotaState(facts.time, remaining(ledger.cells, ceilings[1:], facts.time))
