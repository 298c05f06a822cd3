"""ADMIT over Kafka, one partition: gather, decide, write by compare-and-swap, then act.

Write order and what a crash between two steps costs:

1. ``decisions`` (one batch, one step). Before: nothing happened, the inputs are read again. A lost acknowledgement
   shows when the log is folded to its end.
2. ``work``, ``responses``, ``findings``, ``dead_letters``. Before or within: whoever takes the partition repeats
   them from the mark on; receivers drop repeats by request id.
3. the mark (committed offset of ``requests``). Before: the same repeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pipeline.admit import emissions as dispatch
from pipeline.admit.history import History
from pipeline.admit.intake import Intake, Raw, RequestReader
from pipeline.admit.request_queue import RequestQueue, Screen, clock
from pipeline.admit.step import Step, decide_batch
from pipeline.control.table import ControlTable
from pipeline.errors import Retryable
from pipeline.events import emission
from pipeline.events.ids import GRACE_MS
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.inbox import CAPACITY, DelayedWakeup, Inbox
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
_PAUSE_S = 1.0
_GATHER_S = 0.02
"""Completions wait this long for requests to share a batch with; a refusal that they could turn does not wait."""


@dataclass(frozen=True, slots=True)
class AdmitContext:
    """What the partitions of one admit process share."""

    bootstrap: str
    feed: ControlTable
    vault: Vault
    screen: Screen
    publisher: Publisher
    offsets: Offsets
    marks: CommittedOffsets
    snapshot_every: int = 20_000


class AdmitPartition:
    """The single writer of one partition's history, as long as nobody else is."""

    def __init__(self, context: AdmitContext, partition: int) -> None:
        self._context, self._partition = context, partition
        self._history = History(context.bootstrap, partition, context.offsets, context.publisher)
        self._arrived = asyncio.Event()
        door = RequestReader(context.feed.control, context.vault, partition)
        self._requests = RequestQueue(
            context.bootstrap, partition, context.offsets, door, context.screen, self._arrived
        )
        late = DelayedWakeup(self._arrived, _GATHER_S)
        self._reports = Inbox(PartitionReader(context.bootstrap, "completions", partition, context.offsets), late)
        self._owed: list[LogRecord] = []
        """Written, and what follows is not under way yet."""
        self._acting: asyncio.Task[None] | None = None
        """What follows from the step before, while the next one is decided and written."""
        self._mark = self._acted = 0
        self._looked = 0.0
        self._wrote = False
        """A batch landed where it was predicted since the last look, so nobody else had written."""

    async def run(self, stop: asyncio.Event) -> None:
        """Take the partition over and serve it until ``stop``. Raises Fatal."""
        try:
            await self._insist(self._take_over, stop)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), 0.1)
                self._arrived.clear()
                await self._insist(self._turn, stop)
            if self._history.since_snapshot > self._context.snapshot_every // 20:
                await self._snapshot()
            await self._acted_on()
            await self._commit_mark()
        finally:
            if self._acting is not None:
                self._acting.cancel()
            await self._requests.close()
            await self._reports.close()
            await self._history.close()

    async def _insist(self, act: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await act()
                return
            except Retryable as error:
                _log.warning("admit[%d]: %s; again in %.0f s", self._partition, error, _PAUSE_S)
                await asyncio.sleep(_PAUSE_S)

    async def _take_over(self) -> None:
        self._mark = self._acted = await self._context.marks.get(self._partition)
        self._owed.clear()

        def seen(record: LogRecord) -> None:
            if isinstance(record, Decision) and record.facts.offset >= self._mark:
                self._owed.append(record)

        await self._history.restore(seen)
        ledger = self._history.ledger
        while self._context.feed.control.version < ledger.position.control_version:
            await self._context.feed.refresh()
            await asyncio.sleep(0.05)
        await self._act(())
        await self._requests.start(ledger.position.next_request)
        reports = self._reports.reader
        # what retention took belonged to reservations that have expired since
        await reports.start(max(ledger.position.next_completion, await reports.begin()))
        self._requests.pump()
        self._reports.start()
        at = ledger.position.next_request
        _log.info("admit[%d]: took over at request %d, %d open", self._partition, at, len(ledger.open))

    async def _turn(self) -> None:
        await self._look()
        if self._owed:
            await self._act((), self._requests.by_offset())
        await self._requests.fill(self._history.ledger.position.next_request)
        due = next(self._history.ledger.due(clock(), GRACE_MS), None)
        step = self._decide(drained=due is not None and await self._reports.reach_end())
        if step.blocked and not step.records:
            step = self._decide(drained=await self._reports.reach_end())
        if not step.records:
            self._reports.drop(step.reports)
            return
        if not await self._history.write(step.values):
            await self._fold_newcomers()
            return
        self._wrote = True
        self._reports.drop(step.reports)
        await self._act(step.records, self._requests.take(step.intakes))
        if self._history.since_snapshot >= self._context.snapshot_every:
            await self._snapshot()
        if self._requests.waiting or step.full:
            self._arrived.set()

    async def _look(self) -> None:
        """Now and then: has somebody else written? Did the mark move?"""
        if self._acting is not None and self._acting.done():
            self._acting.result()
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        await self._commit_mark()
        wrote, self._wrote = self._wrote, False
        if not wrote and await self._history.behind():
            await self._fold_newcomers()

    async def _fold_newcomers(self) -> None:
        # owed at once: an error further on must not lose what was folded before it
        await self._history.catch_up(self._owed.append)
        _log.warning("admit[%d]: another writer got %d records in", self._partition, len(self._owed))
        await self._act((), self._requests.by_offset())
        self._arrived.set()

    def _decide(self, drained: bool) -> Step:
        reports = [Raw(i.offset, i.time, i.value, ()) for i in self._reports.peek(CAPACITY)]
        ledger, control = self._history.ledger, self._context.feed.control
        return decide_batch(ledger, control, self._partition, reports, self._requests.pending, clock(), drained)

    async def _act(self, records: Sequence[LogRecord], intakes: dict[int, Intake] | None = None) -> None:
        """Start to send what follows from all that is owed and from ``records``. Raises Retryable."""
        self._owed += records
        intakes = intakes or {}
        wanted = [r.facts.offset for r in self._owed if isinstance(r, Decision) and self._to_run(r)]
        missing = [offset for offset in wanted if offset not in intakes]
        if missing:
            intakes = intakes | await self._requests.read_again(missing)
        await self._acted_on()
        emissions = [e for record in self._owed for e in self._follow(record, intakes)]
        self._owed.clear()
        self._acting = asyncio.create_task(self._send(emissions, self._history.ledger.position.next_request))

    async def _acted_on(self) -> None:
        """Wait until the actions of the step before are acknowledged: their order is that of the records."""
        if self._acting is not None:
            await self._acting

    async def _send(self, emissions: list[emission.Emission], upto: int) -> None:
        """Until it is acknowledged; from then on the mark may pass over everything before ``upto``."""
        while emissions:
            try:
                await self._context.publisher.send_all([(*e, ()) for e in emissions])
                break
            except Retryable as error:
                _log.warning("admit[%d]: %d actions to send again: %s", self._partition, len(emissions), error)
                await asyncio.sleep(_PAUSE_S)
        self._acted = upto

    def _follow(self, record: LogRecord, intakes: dict[int, Intake]) -> list[emission.Emission]:
        if isinstance(record, Decision):
            raw = self._requests.malformed.pop(record.facts.offset, None)
            if dispatch.needs_body(record) and not self._to_run(record):
                return []
            sent = dispatch.after_decision(
                record, self._partition, self._context.feed.control, intakes.get(record.facts.offset)
            )
            if record.facts.fault == "malformed" and raw is not None:
                sent.append(dispatch.dead_letter(raw, self._partition, record.facts.fault))
            return sent
        if isinstance(record, Outcome):
            return dispatch.after_outcome(record, self._context.feed.control.require_deployment().partitions)
        return []

    def _to_run(self, decision: Decision) -> bool:
        return dispatch.needs_body(decision) and decision.request in self._history.ledger.open

    async def _snapshot(self) -> None:
        # Decisions below the snapshot are not folded again, so all that follows from them must be marked as sent.
        await self._acted_on()
        await self._commit_mark()
        if not await self._history.snapshot():
            await self._fold_newcomers()

    async def _commit_mark(self) -> None:
        if self._acted > self._mark:
            await self._context.marks.set(self._partition, self._acted)
            self._mark = self._acted
