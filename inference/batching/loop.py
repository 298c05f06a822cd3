"""Between asyncio callers and the worker thread that computes. No torch.

Callers live on event loops; they reach the thread through an inbox, and each loop gets its chunks
of a step in one call.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from inference.batching.batch import Batch
from inference.batching.sequence import Sequence, failure
from inference.bounds import check_ids, check_request
from inference.ports import Forward
from inference.types import (
    Chunk,
    ContextExceeded,
    EngineClosed,
    EngineStats,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    QueuePosition,
)
from inference.watermark.marking import Marker

STALL_S = 120.0
"""Seconds after which a step counts as stuck; far beyond any honest one, which is bounded by the token budget."""
_JOIN_S = 0.25


_T = TypeVar("_T")
_Waiter: TypeAlias = "tuple[asyncio.AbstractEventLoop, asyncio.Future[_T]]"


@dataclass(eq=False, slots=True)
class _Ticket:
    sequence: Sequence
    loop: asyncio.AbstractEventLoop
    chunks: asyncio.Queue[Chunk] = field(default_factory=asyncio.Queue)

    @property
    def name(self) -> str:
        return self.sequence.request.request_id


class BatchingEngine:
    """An ``InferenceEngine`` over any ``Forward``; starts its worker thread, and one that watches it, at once.

    ``reuse`` False keeps no prefixes between requests. A step of more than ``stall_s`` seconds is given up: its
    requests end with an error, ``stats().stalled`` says so, and the process has to be replaced.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        models: tuple[str, ...],
        max_waiting: int = 1024,
        reuse: bool = True,
        stall_s: float = STALL_S,
        marker: Marker | None = None,
    ) -> None:
        self.models = models
        self.max_context = forward.max_context
        self._forward = forward
        self._batch = Batch(forward, max_waiting=max_waiting, clock=time.monotonic, reuse=reuse, marker=marker)
        self._stats = self._batch.stats()
        self._wake = threading.Condition()
        self._open: dict[str, _Ticket] = {}
        self._joining: list[_Ticket] = []
        self._leaving: list[_Ticket] = []
        self._idle: list[_Waiter[None]] = []
        self._asking: list[tuple[str, _Waiter[QueuePosition | None]]] = []
        self._refusing = self._stopping = False
        self._step_began: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()
        self._watcher = threading.Thread(target=self._watch, args=(stall_s,), name="inference-watch", daemon=True)
        self._watcher.start()

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """See ``InferenceEngine.submit``."""
        if self._refusing:
            raise EngineClosed("the engine is draining; send the request to another one")
        try:
            check_request(request)
            ticket = _Ticket(self._sequence(request), asyncio.get_running_loop())
            self._enter(ticket)
        except InvalidRequest as fault:
            yield failure(request.request_id, fault)
            return
        finished = False
        try:
            while not finished:
                chunk = await ticket.chunks.get()
                finished = chunk.finish is not None
                yield chunk
        finally:
            if not finished:
                self._leave(ticket)

    def cancel(self, request_id: str) -> bool:
        """See ``InferenceEngine.cancel``."""
        with self._wake:
            ticket = self._open.get(request_id)
        if ticket is None:
            return False
        self._leave(ticket)
        return True

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """See ``InferenceEngine.queue_position``."""
        loop = asyncio.get_running_loop()
        with self._wake:
            if request_id not in self._open or self._stopping:
                return None
            future: asyncio.Future[QueuePosition | None] = loop.create_future()
            self._asking.append((request_id, (loop, future)))
            self._wake.notify()
        return await future

    async def drain(self) -> None:
        """See ``InferenceEngine.drain``."""
        loop = asyncio.get_running_loop()
        with self._wake:
            self._refusing = True
            if not self._open:
                return
            future = loop.create_future()
            self._idle.append((loop, future))
        await future

    def stats(self) -> EngineStats:
        """See ``InferenceEngine.stats``."""
        return self._stats

    async def close(self) -> None:
        """See ``InferenceEngine.close``."""
        with self._wake:
            self._refusing = self._stopping = True
            self._wake.notify()
        # a stuck thread cannot be ended, only left behind; that it is stuck may show only while this waits for it
        while self._thread.is_alive() and not self._stats.stalled:
            await asyncio.to_thread(self._thread.join, _JOIN_S)
        self._ended.set()
        # one that wakes while the interpreter goes down makes the process abort instead of end
        await asyncio.to_thread(self._watcher.join)

    def _sequence(self, request: GenerationRequest) -> Sequence:
        prompt = self._forward.encode(request.turns)
        if len(prompt) + request.max_tokens > self.max_context:
            raise ContextExceeded(
                f"expected at most {self.max_context} tokens in all, got {len(prompt)} input "
                f"tokens and max_tokens {request.max_tokens}; shorten the input or lower max_tokens"
            )
        check_ids(request, prompt, self._forward.vocabulary)
        return Sequence(request, prompt, self._forward.lineage(request.tenant, request.adapter))

    def _enter(self, ticket: _Ticket) -> None:
        with self._wake:
            # Asked again under the lock: a drain that saw no open request has returned by now.
            if self._refusing:
                raise EngineClosed("the engine is draining; send the request to another one")
            if ticket.name in self._open:
                raise InvalidRequest("request_id: a request of this id is already running")
            self._open[ticket.name] = ticket
            self._joining.append(ticket)
            self._wake.notify()

    def _leave(self, ticket: _Ticket) -> None:
        with self._wake:
            self._leaving.append(ticket)
            self._wake.notify()

    def _work(self) -> None:
        try:
            while self._take_in():
                self._step_began = time.monotonic()
                chunks = self._batch.step()
                self._step_began = None
                self._publish(chunks)
        except Exception as fault:
            self._step_began = None
            # Without this the thread would die silently and every caller wait for ever.
            self._collapse(f"the engine stopped on {type(fault).__name__}; start a new one")

    def _watch(self, stall_s: float) -> None:
        while not self._ended.wait(min(1.0, stall_s / 4)):
            began = self._step_began
            if began is not None and time.monotonic() - began > stall_s:
                self._stats = dataclasses.replace(self._stats, stalled=True)
                self._collapse(f"a step of the engine has not come back for {stall_s:g} s; start a new one")
                return

    def _take_in(self) -> bool:
        """Let requests join and leave; waits while there is nothing to do. False to stop."""
        with self._wake:
            while not (self._leaving or self._stopping or self._open or self._asking):
                self._wake.wait()
            stopping = self._stopping
            joining, self._joining = self._joining, []
            leaving, self._leaving = self._leaving, []
            asking, self._asking = self._asking, []
            # A ticket that ended on its own must not take out a later one of the same id.
            names = [ticket.name for ticket in leaving if self._open.get(ticket.name) is ticket]
            if stopping:
                names = list(self._open)
        ends = [self._batch.join(ticket.sequence) for ticket in joining]
        ends += [self._batch.leave(name) for name in names]
        for name, waiter in asking:
            _call(waiter[0], _resolve, (waiter[1], self._batch.queue_position(name)))
        self._publish(chunk for chunk in ends if chunk is not None)
        return not stopping

    def _publish(self, chunks: Iterable[Chunk]) -> None:
        """Hand out chunks and counters, and tell who waits for the last answer."""
        if not self._stats.stalled:
            self._stats = self._batch.stats()
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Ticket, Chunk]]] = {}
        with self._wake:
            for chunk in chunks:
                ticket = self._open.get(chunk.request_id)
                if ticket is None:  # given up while its step hung
                    continue
                by_loop.setdefault(ticket.loop, []).append((ticket, chunk))
                if chunk.finish is not None:
                    del self._open[chunk.request_id]
            idle, self._idle = ([], self._idle) if self._open else (self._idle, [])
        for loop, batch in by_loop.items():
            if not _call(loop, _deliver, batch):
                for ticket, _ in batch:
                    self._leave(ticket)
        for loop, future in idle:
            _call(loop, _resolve, (future, None))

    def _collapse(self, error: str) -> None:
        with self._wake:
            self._refusing = self._stopping = True
            tickets = list(self._open.values())
            asking, self._asking = self._asking, []
        for _, (loop, future) in asking:
            _call(loop, _resolve, (future, None))
        self._publish(ticket.sequence.end(FinishReason.ERROR, error) for ticket in tickets)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], argument: Any) -> bool:
    """Run a function on a loop; False when that loop is gone."""
    try:
        loop.call_soon_threadsafe(function, argument)
    except RuntimeError:
        return False
    return True


def _deliver(batch: list[tuple[_Ticket, Chunk]]) -> None:
    for ticket, chunk in batch:
        ticket.chunks.put_nowait(chunk)


def _resolve(answer: tuple[asyncio.Future[Any], Any]) -> None:
    future, value = answer
    if not future.done():
        future.set_result(value)
