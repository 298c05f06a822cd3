"""GENERATE over Kafka, one partition of ``work``: run what is admitted, report, then say that it ended.

Write order of one run: chunks as they come, the completion, its acknowledgement, the last text and the end. Chunks
that come while others are on their way leave together, as one response. A crash before the completion runs the request
again under another attempt; a crash after it at most repeats a completion, which admit drops. Committed is the lowest
unfinished offset, with a bitmap of the finished ones above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from inference.bounds import MAX_DEADLINE_S
from inference.types import EngineClosed, FinishReason, GenerationRequest, InferenceEngine
from pipeline.clock import now_ms
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Malformed, Retryable
from pipeline.events.codec import decode
from pipeline.events.emission import Emission
from pipeline.events.messages import Completion, Work
from pipeline.events.wire import Message
from pipeline.generate import answer as generate
from pipeline.generate.opened_work import opened_messages
from pipeline.generate.progress import Progress
from pipeline.generate.sender import Sender
from pipeline.generate.step import (
    Acknowledged,
    ChunkArrived,
    Ended,
    Failed,
    GenerateStage,
    Leaving,
    Queued,
    Run,
    RunEvent,
    Runs,
)
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.inbox import Inbox
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.keys.vault import Vault
from pipeline.retry import retry_forever
from pipeline.stage import InputBatch, Step
from pipeline.topics import pool_topic

_log = logging.getLogger(__name__)
_COMMIT_S = 0.5
_POSITIONS_S, _POSITIONS = 1.0, 32
"""Seconds between two looks at who waits in the engine, and of how many at most: asking costs the engine time."""


Adapt = Callable[[GenerationRequest], Awaitable[GenerationRequest]]
"""Raises Malformed."""


@dataclass(slots=True)
class GenerateContext:
    """The partitions of one worker share these."""

    kafka: KafkaEndpoint
    worker: str
    engine: InferenceEngine
    control_table: ControlTable
    vault: Vault
    sender: Sender
    reports: Sender
    """Completions, over a connection of their own: a broker answers one write after the other on each."""
    offsets: Offsets
    committed: CommittedOffsets
    guard: Callable[[Work, Sequence[Message]], generate.Guard]
    trace: generate.Trace | None = None
    pool: str = ""
    """The tenant that this worker is for alone; empty for one of the shared workers."""
    adapted: Adapt | None = None
    """Makes a request's adapter ready; None where the engine takes none."""
    observe: Callable[[Completion, generate.RunUsage], None] = lambda completion, usage: None
    """Told of each run as it ends."""
    most: int = 256
    """Requests under way at once, over all partitions."""
    slots: asyncio.Semaphore = field(init=False)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.slots = asyncio.Semaphore(self.most)

    @property
    def topic(self) -> str:
        """Name the topic of this worker's work."""
        return pool_topic(self.pool).name if self.pool else "work"


class GeneratePartition:
    """Runs the work of one partition, each request once per life of this object."""

    def __init__(self, context: GenerateContext, partition: int) -> None:
        self._context = context
        self._partition = partition
        self._stage = GenerateStage(context.control_table.control, context.worker)
        self._runs = self._stage.start()
        self._arrived = asyncio.Event()
        self._inbox = Inbox(
            PartitionReader(context.kafka, context.topic, partition, context.offsets), self._arrived, 256
        )
        self.readings = self._inbox.lag
        self._progress = Progress()
        self._known: dict[str, int] = {}
        self._cancelled: dict[str, int] = {}
        self._queued: dict[str, None] = {}
        """Requests that the engine has and has not begun, those first that are looked at next."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``; runs under way then are left for the next worker. Raises Stopped."""
        beside = [asyncio.create_task(self._keep_committed()), asyncio.create_task(self._announce_positions())]
        try:
            await retry_forever(self._start, stop, f"{self._context.topic}[{self._partition}] to be readable")
            while not stop.is_set():
                items = self._inbox.peek(1)
                if items:
                    self._inbox.drop(1)
                    await self._take(items[0], stop)
                    continue
                self._arrived.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), 0.2)
        finally:
            for task in (*beside, *self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with contextlib.suppress(Retryable):
                await self._commit()
            await self._inbox.close()

    async def _start(self) -> None:
        committed, reader = await self._context.committed.get_with_metadata(self._partition), self._inbox.reader
        self._progress = Progress.load(max(committed.offset, await reader.begin()), committed.metadata)
        await reader.start(self._progress.low)
        self._inbox.start()

    async def _take(self, item: KafkaRecord, stop: asyncio.Event) -> None:
        """Start one record of ``work``, once there is room for it."""
        if not self._progress.begin(item.offset):
            return
        try:
            work = decode(Work, item.value)
        except Malformed as error:
            _log.error("work[%d]: passed over %d: %s", self._partition, item.offset, error)
            self._progress.finish(item.offset)
            return
        now = now_ms()
        if self._context.pool and work.tenant != self._context.pool:
            record = (self._context.topic, self._partition, item.offset)
            _log.error("%s[%d]: passed over %d, which is another tenant's", *record)
            self._progress.finish(item.offset)
        elif work.cancel:
            self._cancelled[work.request] = now + 600_000
            self._context.engine.cancel(work.request)
            self._progress.finish(item.offset)
        elif work.request in self._known or work.deadline <= now:
            self._progress.finish(item.offset)
        else:
            self._known[work.request] = work.deadline
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._context.slots.acquire(), 0.5)
                    run = asyncio.create_task(self._run(item.offset, work))
                    self._tasks.add(run)
                    run.add_done_callback(self._tasks.discard)
                    return

    async def _run(self, offset: int, work: Work) -> None:
        context = self._context
        context.attempts += 1
        attempt = f"{context.worker}.{context.attempts}"
        try:
            try:
                report = self._step(await self._generate(work, attempt))
                run = self._runs[work.request]
                if run.completion is not None and run.answer is not None:
                    context.observe(run.completion, run.answer.usage)
            except Exception as fault:
                # ours, not the caller's; its text may quote the prompt, and the caller waits for an answer
                _log.error("generate: %s met a fault of this worker: %s", work.request, type(fault).__name__)
                report = self._fail(work, attempt)
            for emission in report.emissions:
                await context.reports.written(emission)
            for emission in self._step(Acknowledged(work.request)).emissions:
                context.sender.put(emission)
            self._progress.finish(offset)
        finally:
            self._runs.pop(work.request, None)
            context.slots.release()

    def _step(self, event: RunEvent) -> Step[Runs]:
        step = self._stage.step(self._runs, InputBatch((event,), now_ms()))
        self._runs = step.state
        return step

    def _fail(self, work: Work, attempt: str) -> Step[Runs]:
        if work.request not in self._runs:
            self._step(Run(work, attempt))
        return self._step(Failed(work.request))

    async def _generate(self, work: Work, attempt: str) -> RunEvent:
        """Run a request; give the event that ends it."""
        context = self._context
        try:
            messages = await opened_messages(context.control_table, context.vault, work)
            request = generate.generation(work, messages)
            if request.adapter and context.adapted is not None:
                request = await context.adapted(request)
            left_s = (work.deadline - now_ms()) / 1000
            request = dataclasses.replace(request, deadline_s=min(MAX_DEADLINE_S, max(0.0, left_s)))
        except Malformed as error:
            _log.error("generate: %s cannot be run: %s", work.request, error)
            self._step(Run(work, attempt))
            return Failed(work.request)

        def encrypt(name: str, raw: bytes) -> bytes:
            return context.vault.encrypt(work.tenant, "response", name, work.client_request, raw)

        guard = context.guard(work, messages)
        answer = generate.AnswerStream(work, attempt, context.worker, encrypt, guard, context.trace)
        self._step(Run(work, attempt, answer))
        self._queued[work.request] = None
        try:
            finish = await self._stream(work, request, answer)
        finally:
            self._queued.pop(work.request, None)
        return Ended(work.request, finish, request.adapter)

    async def _stream(
        self, work: Work, request: GenerationRequest, answer: generate.AnswerStream
    ) -> FinishReason | None:
        """Run to the end, which is None at the deadline; text leaves as it comes."""

        def leaving() -> Emission | None:
            return next(iter(self._step(Leaving(work.request)).emissions), None)

        began, finish = now_ms(), None
        try:
            async with asyncio.timeout(max(0.0, (work.deadline - began) / 1000)):
                async with contextlib.aclosing(self._context.engine.submit(request)) as chunks:  # type: ignore[type-var]
                    if work.request in self._cancelled:
                        return FinishReason.CANCELLED
                    async for chunk in chunks:
                        self._queued.pop(work.request, None)
                        if self._step(ChunkArrived(work.request, chunk, now_ms() - began)).signals:
                            self._context.sender.put_late(leaving)
                        finish = chunk.finish
                        if answer.withheld:
                            return FinishReason.CANCELLED
        except TimeoutError:
            return None
        except EngineClosed:
            return FinishReason.ERROR
        return finish

    async def _keep_committed(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_S)
            now = now_ms()
            for table in (self._known, self._cancelled):
                for request in [request for request, until in table.items() if until < now]:
                    del table[request]
            try:
                await self._commit()
            except Retryable as error:
                _log.warning("generate[%d]: %s", self._partition, error)

    async def _announce_positions(self) -> None:
        """Tell requests that wait their place in the queue, where that has changed; they take turns."""
        while True:
            await asyncio.sleep(_POSITIONS_S)
            for request in list(self._queued)[:_POSITIONS]:
                position = await self._context.engine.queue_position(request)
                if request in self._queued:
                    del self._queued[request]
                    self._queued[request] = None
                    for emission in self._step(Queued(request, position)).emissions:
                        self._context.sender.put(emission)

    async def _commit(self) -> None:
        if self._progress.changed:
            await self._context.committed.set(self._partition, self._progress.low, self._progress.dump())
            self._progress.changed = False
