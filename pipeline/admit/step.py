"""ADMIT over one batch: outcomes, then expiries, then decisions, each applied before the next is decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.admit import decide as admit
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.errors import Malformed
from pipeline.events import ids
from pipeline.events.codec import decode, encode
from pipeline.events.control import Control
from pipeline.events.messages import Completion
from pipeline.events.records import ControlMark, LogRecord, Outcome, Tick

STEP_BYTES = 640 * 1024
"""A step ends here; with the largest record on top it still fits one Kafka batch."""
_RECORD_OVERHEAD = 128
_DRAINS = frozenset({"too_many_open", "budget_exhausted", "rate_limited", "busy"})
"""Refusals that a completion which just arrived could turn into an admission."""


@dataclass(slots=True)
class Step:
    """One batch to be: records with their bytes, and how much of each input it used up."""

    records: list[LogRecord] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    size: int = 0
    reports: int = 0
    intakes: int = 0
    unreadable: int = 0
    blocked: bool = False
    """The next request can be refused only after every completion so far was read."""

    @property
    def full(self) -> bool:
        return self.size >= STEP_BYTES

    def add(self, ledger: Ledger, record: LogRecord) -> None:
        ledger.apply(record)
        value = encode(record)
        self.records.append(record)
        self.values.append(value)
        self.size += len(value) + _RECORD_OVERHEAD


def decide_batch(
    ledger: Ledger,
    control: Control,
    partition: int,
    reports: Sequence[Raw],
    intakes: Iterable[Intake],
    now: int,
    drained: bool,
) -> Step:
    """The next step, applied to ``ledger`` under a journal that the caller commits or rolls back.

    ``reports`` are records of ``completions``; outcomes go first, as they free what is held. ``now`` (Unix ms) only
    tells which reservations have expired. ``drained``: ``reports`` are all that there are; nothing expires before, as
    its completion may lie there unread.
    """
    step = Step()
    ledger.begin()
    if control.version > ledger.position.control_version and control.deployment is not None:
        step.add(ledger, ControlMark(ledger.time, control.version))
    for raw in reports:
        if step.full:
            return step
        outcome = _outcome(ledger, raw, step)
        if outcome is not None:
            step.add(ledger, outcome)
        step.reports += 1
    if drained:
        _expire(ledger, step, now)
    for intake in intakes:
        if step.full:
            break
        facts = admit.at_or_after(intake.facts, ledger.time)
        decision = admit.decide(ledger, control, partition, facts)
        if not drained and not _DRAINS.isdisjoint(decision.reasons):
            step.blocked = True
            break
        step.add(ledger, decision)
        step.intakes += 1
    return step


def _outcome(ledger: Ledger, raw: Raw, step: Step) -> Outcome | None:
    try:
        report = decode(Completion, raw.value)
    except Malformed:
        step.unreadable += 1
        return None
    return admit.outcome(ledger, raw.offset, raw.time, report)


def _expire(ledger: Ledger, step: Step, now: int) -> None:
    due = list(ledger.due(now, ids.GRACE_MS))
    if due:
        step.add(ledger, Tick(max(now, ledger.time)))
    for held in due:
        if step.full:
            break
        step.add(ledger, admit.expired(ledger, held, now))
