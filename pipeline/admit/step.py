"""ADMIT answers one batch: outcomes, then expiries, then decisions, each applied before the next is decided."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.admit import decide as admit
from pipeline.admit import emissions
from pipeline.admit.completions import Drop, Tickets, refused
from pipeline.admit.intake import Intake
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota_state import quota_state
from pipeline.errors import Malformed
from pipeline.events import ids
from pipeline.events.codec import decode, encode
from pipeline.events.control import Control
from pipeline.events.emission import Emission
from pipeline.events.limits import QuotaState
from pipeline.events.messages import Completion
from pipeline.events.records import AHEAD_MS, ControlMark, Decision, LogRecord, Outcome, Tick
from pipeline.stage import InputBatch, InputRecord, Rejection, Step

STEP_BYTES = 640 * 1024
"""A step ends here; with the largest record on top it still fits one Kafka batch."""
BLOCKED = "blocked"
"""The next request can be refused only after every completion so far was read."""
ENDED = "ended"
"""A completion is of no open request: its run was made twice, or its request was given up."""
_RECORD_OVERHEAD = 128
_DRAINS = frozenset({"too_many_open", "budget_exhausted", "rate_limited", "busy"})
"""Refusals that a completion which just arrived could turn into an admission."""


@dataclass(slots=True)
class AdmitStep(Step[Ledger]):
    """One batch of ``decisions``: its records come first among the emissions, the actions last."""

    records: list[LogRecord] = field(default_factory=list)
    intakes: list[Intake | None] = field(default_factory=list)
    """The request behind each record, where there is one."""
    quotas: list[QuotaState | None] = field(default_factory=list)
    """What each decision left of the caller's limits, where a gateway waits."""
    actions: list[Emission] = field(default_factory=list)
    """Emissions that wait until the records are written."""
    dropped: list[tuple[InputRecord, Drop]] = field(default_factory=list)
    """Completions that end nothing, and why."""
    reports: int = 0
    """Completions among the items that are done with."""
    now: int = 0
    """The worker's clock, Unix ms."""
    size: int = 0

    @property
    def values(self) -> list[bytes]:
        """Give the bytes of ``records``."""
        return [emission.value for emission in self.emissions[: len(self.records)]]

    @property
    def ticked(self) -> bool:
        """The step tells the time, and nothing else."""
        return bool(self.records) and isinstance(self.records[0], Tick)

    @property
    def told(self) -> int:
        """Give the time that a tick tells: no clock that is ahead of the worker's makes anything expire."""
        return min(self.now, self.state.time)

    @property
    def full(self) -> bool:
        """One batch of Kafka holds no more."""
        return self.size >= STEP_BYTES


class AdmitStage:
    """Decides the requests of one partition; its state is the ledger."""

    name = "admit"
    reads = ("requests", "completions", "control", "decisions", "snapshots")
    writes = ("decisions", "snapshots", "work", "responses", "findings", "dead_letters")
    signals = (BLOCKED, ENDED)

    def __init__(self, control: Control, partition: int, tickets: Tickets) -> None:
        self._control = control
        self._partition = partition
        self._tickets = tickets

    def start(self) -> Ledger:
        """Give the ledger before the first record."""
        return Ledger()

    def fold(self, ledger: Ledger, records: Iterable[LogRecord]) -> Ledger:
        """Apply records of ``decisions``. Raises Fatal at one that cannot follow."""
        for record in records:
            ledger.apply(record)
        return ledger

    def step(self, ledger: Ledger, batch: InputBatch[InputRecord | Intake]) -> AdmitStep:
        """Answer a batch of completions and, behind them, requests; outcomes go first, as they free what is held.

        The ledger is changed under a journal that the caller commits once the records of ``decisions`` are written, or
        rolls back. Where ``batch.now``, the worker's clock, says that something falls due, the next step is a tick
        alone; what is due by the time that it lands at expires then, unless the batch is not ``drained`` and its
        completion may lie there unread.
        """
        step = AdmitStep(ledger, now=batch.now)
        ledger.begin()
        if self._control.version > ledger.position.control_version and self._control.deployment is not None:
            self._add(step, ControlMark(ledger.time, self._control.version))
        reports = [item for item in batch.items if not isinstance(item, Intake)]
        self._end(step, reports, batch.now + AHEAD_MS)
        step.reports = step.consumed
        if step.reports == len(reports):
            intakes: Sequence[Intake] = batch.items[len(reports) :]  # type: ignore[assignment]
            step.more = batch.ticks and self._falls_due(ledger, batch)
            if not step.more:
                self._expire(step, batch)
                self._decide(step, intakes, batch.drained)
            elif not step.records:
                self._add(step, Tick(max(batch.now, ledger.time)))
        # in a loop of its own, which keeps the code of deciding in the processor's cache
        for record, intake, quota in zip(step.records, step.intakes, step.quotas, strict=True):
            step.actions += self.follow(ledger, record, intake, quota)
        step.actions += emissions.dropped_completions(step.dropped, self._partition)
        step.emissions += step.actions
        return step

    def needs_body(self, ledger: Ledger, record: LogRecord) -> bool:
        """Tell whether what follows from the record takes the request's own bytes."""
        return isinstance(record, Decision) and emissions.needs_body(record) and record.request in ledger.open

    def follow(
        self, ledger: Ledger, record: LogRecord, intake: Intake | None = None, quota: QuotaState | None = None
    ) -> list[Emission]:
        """Give what is sent because of a record that is written; a request that has ended is not run again.

        ``quota`` is what the decision left; a worker that did not decide it itself no longer knows.
        """
        if isinstance(record, Decision):
            if emissions.needs_body(record) and record.request not in ledger.open:
                return []
            ticket = self._tickets.of(record)
            return emissions.after_decision(record, self._partition, self._control, intake, quota, ticket)
        if isinstance(record, Outcome):
            return emissions.after_outcome(record, self._control.require_deployment().partitions)
        return []

    @staticmethod
    def _falls_due(ledger: Ledger, batch: InputBatch[InputRecord | Intake]) -> bool:
        """Tell whether something is due by the worker's clock that is not by what was told."""
        if next(ledger.due(batch.told, ids.GRACE_MS), None) is not None:
            return False
        return next(ledger.due(batch.now, ids.GRACE_MS), None) is not None

    def _end(self, step: AdmitStep, reports: Sequence[InputRecord], latest: int) -> None:
        """Write the outcomes of what is reported, at their append times, but none later than ``latest``."""
        for item in reports:
            if step.full:
                return
            outcome = self._outcome(step, item, latest)
            if outcome is not None:
                self._add(step, outcome)
            step.consumed += 1

    def _outcome(self, step: AdmitStep, item: InputRecord, latest: int) -> Outcome | None:
        """Give what the completion makes of its request; None where it ends nothing, which is counted."""
        try:
            report = decode(Completion, item.value)
        except Malformed:
            self._drop(step, item, "malformed")
            return None
        reservation = step.state.open.get(report.request)
        if reservation is None:
            step.signal(ENDED)
            return None
        reason = refused(self._tickets, reservation, report)
        if reason is not None:
            self._drop(step, item, reason)
            return None
        return admit.outcome(step.state, item.offset, min(item.time, latest), report)

    def _drop(self, step: AdmitStep, item: InputRecord, reason: Drop) -> None:
        step.rejections.append(Rejection("completions", item.offset, reason))
        step.dropped.append((item, reason))

    def _expire(self, step: AdmitStep, batch: InputBatch[InputRecord | Intake]) -> None:
        ledger = step.state
        for reservation in list(ledger.due(batch.told, ids.GRACE_MS)) if batch.drained else ():
            if step.full:
                return
            self._add(step, admit.expired(ledger, reservation, ledger.time))

    def _decide(self, step: AdmitStep, intakes: Sequence[Intake], drained: bool) -> None:
        ledger = step.state
        for intake in intakes:
            if step.full:
                return
            if intake.facts.offset < ledger.position.next_request:
                # decided meanwhile, by a writer that won the race
                step.consumed += 1
                continue
            facts = admit.following(intake.facts, ledger.position)
            decision = admit.decide(ledger, self._control, self._partition, facts)
            if not drained and not _DRAINS.isdisjoint(decision.reasons):
                step.signal(BLOCKED)
                return
            self._add(step, decision, intake)
            step.quotas[-1] = quota_state(ledger, self._control, decision)
            step.consumed += 1

    def _add(self, step: AdmitStep, record: LogRecord, intake: Intake | None = None) -> None:
        step.state.apply(record)
        value = encode(record)
        step.records.append(record)
        step.intakes.append(intake)
        step.quotas.append(None)
        step.size += len(value) + _RECORD_OVERHEAD
        step.emissions.append(Emission("decisions", self._partition, b"", value))
