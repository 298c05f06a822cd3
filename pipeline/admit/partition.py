"""ADMIT serves one partition of Kafka: gather, decide, write by compare-and-swap, then act.

Write order and what a crash between two steps costs:

1. ``decisions`` (one batch, one step). Before: nothing happened, the inputs are read again. A lost acknowledgement
   shows when the log is folded to its end.
2. ``work``, ``responses``, ``findings``, ``dead_letters``. Before or within: the next owner of the partition repeats
   them from the committed offset on; receivers drop repeats by request id.
3. the committed offset of ``requests``. Before: the same repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.admit.completions import Tickets
from pipeline.admit.history import History
from pipeline.admit.intake import Intake, RequestReader
from pipeline.admit.request_queue import RequestQueue, Screen
from pipeline.admit.step import BLOCKED, ENDED, AdmitStage, AdmitStep
from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.events.emission import Emission
from pipeline.events.ids import GRACE_MS
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.kafka.clock_watch import ClockWatch
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.inbox import CAPACITY, DelayedWakeup, Inbox
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault
from pipeline.metrics import DROPPED, OVERSHOOT, MetricSample
from pipeline.retry import retry_forever
from pipeline.stage import InputBatch, InputRecord

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
_TICK_S = 1.0
"""A worker whose clock is fast has the time told once in this, however often it believes that something is due."""
_GATHER_S = 0.02
"""Delay before completions alone wake the loop. A refusal that a waiting completion could overturn does not wait."""


@dataclass(frozen=True, slots=True)
class AdmitContext:
    """The partitions of one admit process share these."""

    kafka: KafkaEndpoint
    control_table: ControlTable
    vault: Vault
    screen: Screen
    publisher: Publisher
    offsets: Offsets
    committed: CommittedOffsets
    snapshot_every: int = 20_000
    clock_watch: ClockWatch = field(default_factory=ClockWatch)
    count: Callable[..., None] = lambda name, *labels, by: None
    """Counts what is in the table of metrics: ``Meters.count``."""


class AdmitPartition:
    """The single writer of one partition's history, as long as nobody else is."""

    def __init__(self, context: AdmitContext, partition: int) -> None:
        self._context = context
        self._partition = partition
        self._tickets = Tickets(context.vault.ticket_keys())
        self._stage = AdmitStage(context.control_table.control, partition, self._tickets)
        self._clock_watch = context.clock_watch
        self._history = History(context.kafka, partition, context.offsets, context.publisher, self._clock_watch)
        self._arrived = asyncio.Event()
        self._stop = asyncio.Event()
        table = context.control_table
        request_reader = RequestReader(table.control, context.vault, partition, table.caught_up)
        self._requests = RequestQueue(
            context.kafka, partition, context.offsets, request_reader, context.screen, self._arrived, self._clock_watch
        )
        late = DelayedWakeup(self._arrived, _GATHER_S)
        self._reports = Inbox(PartitionReader(context.kafka, "completions", partition, context.offsets), late)
        self._owed: list[LogRecord] = []
        """Records of others, and from before, whose actions are not under way yet."""
        self._actions: list[Emission] = []
        """Actions of this writer's steps that are not under way yet."""
        self._acting: asyncio.Task[None] | None = None
        """What follows from the step before, while the next one is decided and written."""
        self._committed = self._sent_to = 0
        """Offset in ``requests`` up to which the actions are committed as sent, and up to which they are sent."""
        self._looked = self._ticked = 0.0
        self._told = 0
        """What this worker's last tick told; nothing is expired by any other word."""
        self._wrote = False
        """A batch landed where it was predicted since the last look, so nobody else had written."""

    async def run(self, stop: asyncio.Event) -> None:
        """Take the partition over and serve it until ``stop``. Raises Fatal."""
        self._stop, serving = stop, f"admit[{self._partition}] to go on"
        try:
            await retry_forever(self._take_over, stop, serving)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), 0.1)
                self._arrived.clear()
                await retry_forever(self._poll_once, stop, serving)
            if self._wants_snapshot(self._context.snapshot_every // 20):
                await self._snapshot()
            await self._acted_on()
            await self._commit()
        finally:
            if self._acting is not None and not self._acting.cancel() and not self._acting.cancelled():
                # what it raised is why this one leaves, or comes of it
                self._acting.exception()
            await self._requests.close()
            await self._reports.close()
            await self._history.close()
            if not self._clock_watch.behind:
                # else it is the evidence by which the worker stays away
                self._clock_watch.forget(self._partition)

    def readings(self) -> list[MetricSample]:
        """Tell how far the partition's inputs are behind."""
        return [*self._requests.lag(), *self._reports.lag()]

    async def _take_over(self) -> None:
        # its last owner may have given tickets out under a key that the keyring got since
        self._tickets.renew(self._context.vault.ticket_keys())
        self._committed = self._sent_to = await self._context.committed.get(self._partition)
        self._owed.clear()

        def owe(record: LogRecord) -> None:
            if isinstance(record, Decision) and record.facts.offset >= self._committed:
                self._owed.append(record)

        await self._history.restore(owe)
        await self._history.lift(owe)
        ledger = self._history.ledger
        await self._read_documents()
        await self._act({})
        await self._requests.start(ledger.position.next_request)
        reports = self._reports.reader
        # what retention took belonged to reservations that have expired since
        await reports.start(max(ledger.position.next_completion, await reports.begin()))
        self._requests.pump()
        self._reports.start()
        position = ledger.position.next_request
        _log.info("admit[%d]: took over at request %d, %d open", self._partition, position, len(ledger.open))

    async def _read_documents(self) -> None:
        """Read ``control`` at least as far as what the log was decided by. Raises Retryable where it ends before."""
        table, wanted = self._context.control_table, self._history.ledger.position.control_version
        if table.control.version < wanted:
            await table.refresh()
        if table.control.version < wanted:
            raise Retryable(
                f"decisions[{self._partition}] was decided by document {wanted} of control: expected it there, got an "
                f"end at {table.control.version}. Restore control, or run sluice audit verify"
            )

    async def _poll_once(self) -> None:
        await self._look()
        await self._read_documents()
        if self._owed or self._actions:
            await self._act(self._requests.by_offset())
        ledger = self._history.ledger
        self._clock_watch.agreed(self._partition, ledger.time)
        await self._requests.fill(ledger.position)
        due = next(ledger.due(self._told, GRACE_MS), None)
        step = self._step(drained=due is not None and await self._reports.reach_end())
        if BLOCKED in step.signals and not step.records:
            step = self._step(drained=await self._reports.reach_end())
        if step.records and not await self._history.write(step.records, step.values):
            await self._fold_newcomers()
            return
        if step.ticked:
            self._told = step.told
        self._reports.drop(step.reports)
        self._count(step)
        is_idle = not step.records and not step.actions
        if not is_idle:
            self._wrote = self._wrote or bool(step.records)
            self._requests.drop(step.consumed - step.reports)
            self._actions += step.actions
            await self._act({})
        if self._wants_snapshot(self._context.snapshot_every):
            await self._snapshot()
        if not is_idle and (self._requests.waiting or step.full or step.more):
            self._arrived.set()

    def _count(self, step: AdmitStep) -> None:
        """Count the completions that end nothing, and usage above what was reserved."""
        dropped = Counter(rejection.reason for rejection in step.rejections)
        for reason, count in dropped.items():
            self._context.count(DROPPED, reason, by=count)
            _log.warning("admit[%d]: dropped %d completions: %s", self._partition, count, reason)
        self._context.count(DROPPED, ENDED, by=step.signals.get(ENDED, 0))
        for record in step.records:
            if isinstance(record, Outcome) and record.overshoot:
                self._context.count(OVERSHOOT, by=record.overshoot)
                _log.warning(
                    "admit[%d]: %s used %d tokens above what was reserved; raise the margin of model %s",
                    self._partition, record.request, record.overshoot, record.model,
                )  # fmt: skip

    async def _look(self) -> None:
        """Commit and look for records of another writer, at most every _LOOK_S."""
        if self._acting is not None and self._acting.done():
            self._acting.result()
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self._tickets.renew(self._context.vault.ticket_keys())
        await self._commit()
        wrote, self._wrote = self._wrote, False
        if not wrote and await self._history.behind():
            await self._fold_newcomers()

    async def _fold_newcomers(self) -> None:
        # owed at once: an error further on must not lose what was folded before it
        await self._history.catch_up(self._owed.append)
        _log.warning("admit[%d]: another writer got %d records in", self._partition, len(self._owed))
        await self._act(self._requests.by_offset())
        self._arrived.set()

    def _step(self, drained: bool) -> AdmitStep:
        items: list[InputRecord | Intake] = [*self._reports.peek(CAPACITY), *self._requests.pending]
        ticks = time.monotonic() - self._ticked >= _TICK_S
        step = self._stage.step(self._history.ledger, InputBatch(items, now_ms(), drained, ticks, self._told))
        if step.ticked:
            self._ticked = time.monotonic()
        return step

    async def _act(self, intakes: dict[int, Intake]) -> None:
        """Start to send everything that follows from written records and is not under way. Raises Retryable."""
        ledger = self._history.ledger
        decisions = [record for record in self._owed if isinstance(record, Decision)]
        wanted = [decision.facts.offset for decision in decisions if self._stage.needs_body(ledger, decision)]
        missing = [offset for offset in wanted if offset not in intakes]
        if missing:
            intakes = intakes | await self._requests.read_again(missing)
        await self._acted_on()
        emissions: list[Emission] = []
        for record in self._owed:
            intake = intakes.get(record.facts.offset) if isinstance(record, Decision) else None
            emissions += self._stage.follow(ledger, record, intake)
        emissions += self._actions
        self._owed.clear()
        self._actions = []
        self._acting = asyncio.create_task(self._send(emissions, ledger.position.next_request))

    async def _acted_on(self) -> None:
        """Wait until the actions of the step before are acknowledged: their order is that of the records."""
        if self._acting is not None:
            await self._acting

    async def _send(self, emissions: list[Emission], next_request: int) -> None:
        """Send until acknowledged; then everything before ``next_request`` may be committed."""
        if emissions:
            records = [(*e, ()) for e in emissions]
            what = f"admit[{self._partition}] to send {len(records)} records"
            await retry_forever(lambda: self._context.publisher.send_all(records), self._stop, what)
        self._sent_to = next_request

    def _wants_snapshot(self, every: int) -> bool:
        return self._history.wants_snapshot(every, self._clock_watch.broker(self._partition, now_ms()))

    async def _snapshot(self) -> None:
        # Decisions below the snapshot are not folded again, so all that follows from them must be committed as sent.
        await self._acted_on()
        await self._commit()
        if not await self._history.snapshot():
            await self._fold_newcomers()

    async def _commit(self) -> None:
        if self._sent_to > self._committed:
            await self._context.committed.set(self._partition, self._sent_to)
            self._committed = self._sent_to
