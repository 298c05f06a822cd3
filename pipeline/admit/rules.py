"""The rules of every decider that this build knows; the verifier derives each part of a log by those of its time."""

from __future__ import annotations

from pipeline.admit import decide
from pipeline.admit.decider6 import decide as decide6
from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.ledger import Ledger
from pipeline.admit.upgrade import AnyLedger, converted, mark
from pipeline.audit.replay import Rules
from pipeline.events.ids import GRACE_MS

RULES: tuple[Rules, ...] = (
    Rules(Ledger6, decide6.decide, decide6.outcome, decide6.expired, GRACE_MS, decider=6, landed=None),
    Rules(Ledger, decide.decide, decide.outcome, decide.expired, GRACE_MS, convert=converted, mark=mark),
)
"""Oldest first: a log begins under the first ones."""


def rules_of(ledger: AnyLedger) -> tuple[Rules, ...]:
    """Give the rules of ``ledger`` and those that may follow them in its log."""
    return RULES if isinstance(ledger, Ledger6) else RULES[1:]
