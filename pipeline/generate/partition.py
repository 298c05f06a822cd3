"""GENERATE over Kafka, one partition of ``work``: run what is admitted, report, then say that it ended.

Write order of one run: chunks as they come, the completion, its acknowledgement, the last text and the end. Chunks
that come while others are on their way leave together, as one response. A crash before the completion runs the request
again under another attempt; a crash after it at most repeats a completion, which admit drops. The mark is the lowest
unfinished offset, with a bitmap of the finished ones above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from inference.bounds import MAX_DEADLINE_S
from inference.types import EngineClosed, FinishReason, GenerationRequest, InferenceEngine, QueuePosition
from pipeline.control.table import ControlTable
from pipeline.errors import Malformed, Retryable
from pipeline.events.codec import decode, encode
from pipeline.events.emission import Emission, lane_partition
from pipeline.events.ids import GRACE_MS
from pipeline.events.messages import Completion, Response, Work
from pipeline.events.wire import Message, decode_messages
from pipeline.generate import answer as generate
from pipeline.generate.progress import Progress
from pipeline.generate.sender import Sender
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.inbox import Inbox
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.keys.vault import Vault
from pipeline.topics import pool_topic

_log = logging.getLogger(__name__)
_MARK_S = 0.5
_PAUSE_S = 1.0
_PLACES_S, _PLACES = 1.0, 32
"""Seconds between two looks at who waits in the engine, and of how many at most: asking costs the engine time."""


Adapt = Callable[[GenerationRequest], Awaitable[GenerationRequest]]
"""Raises Malformed."""


@dataclass(slots=True)
class GenerateContext:
    """What the partitions of one worker share."""

    bootstrap: str
    worker: str
    engine: InferenceEngine
    feed: ControlTable
    vault: Vault
    sender: Sender
    reports: Sender
    """Completions, over a connection of their own: a broker answers one write after the other on each."""
    offsets: Offsets
    marks: CommittedOffsets
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
        """Where this worker's work comes from."""
        return pool_topic(self.pool).name if self.pool else "work"


class GeneratePartition:
    """Runs the work of one partition, each request once per life of this object."""

    def __init__(self, context: GenerateContext, partition: int) -> None:
        self._context, self._partition = context, partition
        self._arrived = asyncio.Event()
        self._inbox = Inbox(
            PartitionReader(context.bootstrap, context.topic, partition, context.offsets), self._arrived, 256
        )
        self._progress = Progress()
        self._known: dict[str, int] = {}
        self._cancelled: dict[str, int] = {}
        self._waiting: dict[str, tuple[Work, str, QueuePosition | None]] = {}
        """Given to the engine and not begun: with attempt, and the place that was told."""
        self._runs: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``; runs under way then are left for whoever comes next."""
        beside = [asyncio.create_task(self._keep_mark()), asyncio.create_task(self._tell_places())]
        try:
            await self._start(stop)
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
            for task in (*beside, *self._runs):
                task.cancel()
            await asyncio.gather(*self._runs, return_exceptions=True)
            with contextlib.suppress(Retryable):
                await self._set_mark()
            await self._inbox.close()

    async def _start(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                mark, note = await self._context.marks.get_with_note(self._partition)
                reader = self._inbox.reader
                self._progress = Progress.load(max(mark, await reader.begin()), note)
                await reader.start(self._progress.low)
                self._inbox.start()
                return
            except Retryable as error:
                _log.warning("generate[%d]: %s", self._partition, error)
                await asyncio.sleep(_PAUSE_S)

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
        now = _clock()
        if self._context.pool and work.tenant != self._context.pool:
            place = (self._context.topic, self._partition, item.offset)
            _log.error("%s[%d]: passed over %d, which is another tenant's", *place)
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
                    self._runs.add(run)
                    run.add_done_callback(self._runs.discard)
                    return

    async def _run(self, offset: int, work: Work) -> None:
        context = self._context
        context.attempts += 1
        attempt = f"{context.worker}.{context.attempts}"
        try:
            try:
                completion, rest, told = await self._generate(work, attempt)
            except Exception as fault:
                # ours, not the caller's; its text may quote the prompt, and the caller waits for an answer
                _log.error("generate: %s met a fault of this worker: %s", work.request, type(fault).__name__)
                completion, rest, told = generate.failed(work, attempt, context.worker), None, b""
            written = encode(completion)
            await self._context.reports.written(
                Emission("completions", work.partition, work.organisation.encode(), written)
            )
            if rest is not None:
                self._context.sender.put(self._response(work, rest))
            if _clock() < work.deadline + GRACE_MS:
                # later it may have expired already, and admit is the one to say so
                self._context.sender.put(self._response(work, generate.end(work, completion, written, told)))
            event = generate.finding(work, completion, _clock())
            if event is not None:
                self._context.sender.put(Emission("findings", work.partition, work.organisation.encode(), event))
            self._progress.finish(offset)
        finally:
            self._context.slots.release()

    async def _generate(self, work: Work, attempt: str) -> tuple[Completion, Response | None, bytes]:
        """The report, the text that has not left yet and goes with the end, and the sealed log-probabilities."""
        context = self._context
        try:
            messages = await self._open(work)
            request = generate.generation(work, messages)
            if request.adapter and context.adapted is not None:
                request = await context.adapted(request)
            left_s = (work.deadline - _clock()) / 1000
            request = dataclasses.replace(request, deadline_s=min(MAX_DEADLINE_S, max(0.0, left_s)))
        except Malformed as error:
            _log.error("generate: %s cannot be run: %s", work.request, error)
            return generate.failed(work, attempt, context.worker), None, b""

        def seal(name: str, raw: bytes) -> bytes:
            return context.vault.encrypt(work.tenant, "response", name, work.client_request, raw)

        answer = generate.AnswerStream(
            work, attempt, context.worker, seal, context.guard(work, messages), context.trace
        )
        self._waiting[work.request] = (work, attempt, None)
        try:
            finish = await self._stream(work, request, answer)
        finally:
            self._waiting.pop(work.request, None)
        completion = msgspec.structs.replace(answer.completion(finish), adapter=request.adapter)
        context.observe(completion, answer.usage)
        return completion, answer.take(), answer.readout()

    async def _stream(
        self, work: Work, request: GenerationRequest, answer: generate.AnswerStream
    ) -> FinishReason | None:
        """Run to the end, which is None at the deadline; text leaves as it comes."""

        def gathered() -> Emission | None:
            taken = answer.take()
            return None if taken is None else self._response(work, taken)

        began, finish = _clock(), None
        try:
            async with asyncio.timeout(max(0.0, (work.deadline - began) / 1000)):
                async with contextlib.aclosing(self._context.engine.submit(request)) as chunks:  # type: ignore[type-var]
                    if work.request in self._cancelled:
                        return FinishReason.CANCELLED
                    async for chunk in chunks:
                        self._waiting.pop(work.request, None)
                        if answer.push(chunk, _clock() - began):
                            self._context.sender.put_late(gathered)
                        finish = chunk.finish
                        if answer.withheld:
                            return FinishReason.CANCELLED
        except TimeoutError:
            return None
        except EngineClosed:
            return FinishReason.ERROR
        return finish

    async def _open(self, work: Work) -> tuple[Message, ...]:
        if work.tenant not in self._context.feed.control.tenants:
            await self._context.feed.refresh()
        return decode_messages(
            self._context.vault.decrypt(work.tenant, "request", "messages", work.client_request, work.sealed, work.wrap)
        )

    def _response(self, work: Work, response: Response) -> Emission:
        where = lane_partition(work.lane, self._context.feed.control.require_deployment().partitions)
        return Emission("responses", where, work.request.encode(), encode(response))

    async def _keep_mark(self) -> None:
        while True:
            await asyncio.sleep(_MARK_S)
            now = _clock()
            for table in (self._known, self._cancelled):
                for request in [request for request, until in table.items() if until < now]:
                    del table[request]
            try:
                await self._set_mark()
            except Retryable as error:
                _log.warning("generate[%d]: %s", self._partition, error)

    async def _tell_places(self) -> None:
        """Tell those that wait where they stand, where that has changed; they take turns to be looked at."""
        while True:
            await asyncio.sleep(_PLACES_S)
            for request in list(self._waiting)[:_PLACES]:
                found = await self._context.engine.queue_position(request)
                held = self._waiting.pop(request, None)
                if held is None:
                    continue
                work, attempt, told = held
                self._waiting[request] = (work, attempt, found)
                if found is not None and found.position and found != told:
                    self._context.sender.put(self._response(work, generate.position_response(work, attempt, found)))

    async def _set_mark(self) -> None:
        if self._progress.changed:
            await self._context.marks.set(self._partition, self._progress.low, self._progress.dump())
            self._progress.changed = False


def _clock() -> int:
    return int(time.time() * 1000)
