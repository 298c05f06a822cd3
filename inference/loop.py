"""The step loop: one worker thread, requests join and leave between steps. No torch.

``BatchingEngine`` is the whole engine but for the arithmetic, which a ``Forward`` brings. Callers
live on asyncio loops; they reach the thread through an inbox and get chunks back in one call per
loop and step.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference.ports import FeedTokens, Forward, Row
from inference.sampling import choose, uniform
from inference.scheduler import Feed, QueueFull, Scheduler
from inference.sequence import Sequence, failure
from inference.types import (
    Chunk,
    EngineClosed,
    EngineStats,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    check_request,
)


@dataclass(eq=False, slots=True)
class _Ticket:
    sequence: Sequence
    loop: asyncio.AbstractEventLoop
    chunks: asyncio.Queue[Chunk] = field(default_factory=asyncio.Queue)
    joined: bool = False


class BatchingEngine:
    """An ``InferenceEngine`` over any ``Forward``."""

    def __init__(self, forward: Forward, *, models: tuple[str, ...], max_waiting: int = 1024) -> None:
        self.models = models
        self.max_context = forward.max_context
        self._forward = forward
        self._scheduler = Scheduler(slots=forward.slots, budget=forward.budget, max_waiting=max_waiting)
        self._wake = threading.Condition()
        self._joining: deque[_Ticket] = deque()
        self._leaving: deque[_Ticket] = deque()
        self._open: dict[str, _Ticket] = {}
        self._idle: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._refusing = self._stopping = False
        self._steps = self._tokens = self._filled = 0
        self._outbox: list[tuple[_Ticket, Chunk]] = []
        self._stats = EngineStats(0, 0, 0, 0, 0.0)
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    async def submit(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """See ``InferenceEngine.submit``."""
        if self._refusing:
            raise EngineClosed("the engine is draining; send the request to another one")
        try:
            check_request(request)
            ticket = _Ticket(Sequence(request, self._encode(request)), asyncio.get_running_loop())
            self._enter(ticket)
        except InvalidRequest as fault:
            yield failure(request.request_id, str(fault))
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
        await asyncio.to_thread(self._thread.join)

    def _encode(self, request: GenerationRequest) -> list[int]:
        prompt = self._forward.encode(request.turns)
        if len(prompt) + request.max_tokens > self.max_context:
            raise InvalidRequest(
                f"expected at most {self.max_context} tokens in all, got {len(prompt)} input "
                f"tokens and max_tokens {request.max_tokens}; shorten the input or lower max_tokens"
            )
        return prompt

    def _enter(self, ticket: _Ticket) -> None:
        name = ticket.sequence.request.request_id
        with self._wake:
            if self._stopping:
                raise EngineClosed("the engine was closed; send the request to another one")
            if name in self._open:
                raise InvalidRequest("request_id: a request of this id is already running")
            self._open[name] = ticket
            self._joining.append(ticket)
            self._wake.notify()

    def _leave(self, ticket: _Ticket) -> None:
        with self._wake:
            self._leaving.append(ticket)
            self._wake.notify()

    def _work(self) -> None:
        try:
            while self._take_in():
                self._step()
        except Exception as fault:
            # Without this the thread would die silently and every caller wait for ever.
            self._collapse(f"the engine stopped on {type(fault).__name__}; start a new one")

    def _step(self) -> None:
        feeds = self._scheduler.plan()
        for feed, outcome in self._compute(feeds):
            self._apply(feed, outcome)
        if feeds:
            self._steps += 1
            self._filled += len(feeds)
        self._publish()

    def _collapse(self, error: str) -> None:
        with self._wake:
            self._refusing = self._stopping = True
            tickets = list(self._open.values())
            self._open.clear()
        for ticket in tickets:
            self._outbox.append((ticket, ticket.sequence.end(FinishReason.ERROR, error)))
        self._publish()

    def _take_in(self) -> bool:
        """Let requests join and leave; waits while there is nothing to do. False to stop."""
        with self._wake:
            while not (self._joining or self._leaving or self._stopping or self._open):
                self._wake.wait()
            joining, self._joining = list(self._joining), deque()
            leaving, self._leaving = list(self._leaving), deque()
            stopping = self._stopping
            if stopping:
                leaving = list(self._open.values())
        for ticket in joining:
            self._join(ticket)
        for ticket in leaving:
            self._finish(ticket, ticket.sequence.end(FinishReason.CANCELLED))
        if stopping:
            self._publish()
        return not stopping

    def _join(self, ticket: _Ticket) -> None:
        request = ticket.sequence.request
        try:
            self._scheduler.add(request.request_id, request.tenant, ticket.sequence.input_tokens)
            ticket.joined = True
        except QueueFull:
            error = "the engine's queue is full; try again later or send it to another engine"
            self._finish(ticket, ticket.sequence.end(FinishReason.ERROR, error))

    def _compute(self, feeds: Items[Feed]) -> list[tuple[Feed, Row | str | None]]:
        """Logits for each feed, None where its prompt is not through, or why it failed.

        A fault in a shared pass is hunted down by halving, so only the guilty request fails;
        computing the others again writes the same values again.
        """
        if not feeds:
            return []
        batch = [FeedTokens(feed, self._tokens_of(feed)) for feed in feeds]
        try:
            rows = iter(self._forward.logits(batch))
            return [(feed, _finite(next(rows)) if feed.last else None) for feed in feeds]
        except Exception as fault:
            if len(feeds) == 1:
                # The type alone: a message could quote the prompt.
                return [(feeds[0], f"{type(fault).__name__} while computing this request")]
            half = len(feeds) // 2
            return [*self._compute(feeds[:half]), *self._compute(feeds[half:])]

    def _tokens_of(self, feed: Feed) -> list[int]:
        return self._open[feed.request_id].sequence.ids[feed.start : feed.start + feed.count]

    def _apply(self, feed: Feed, outcome: Row | str | None) -> None:
        ticket = self._open[feed.request_id]
        sequence = ticket.sequence
        if isinstance(outcome, str):
            self._finish(ticket, sequence.end(FinishReason.ERROR, outcome))
            return
        self._scheduler.fed(feed, drawn=outcome is not None)
        if outcome is None:
            return
        sampling = sequence.request.sampling
        draw = uniform(sequence.request.request_id, sampling.seed, sequence.output_tokens)
        token = choose(outcome, sampling, draw)
        if token == self._forward.end:
            self._finish(ticket, sequence.end(FinishReason.STOP))
            return
        self._tokens += 1
        chunk = sequence.accept(token, self._forward.piece(token))
        if chunk is not None and chunk.finish is not None:
            self._finish(ticket, chunk)
        elif chunk is not None:
            self._outbox.append((ticket, chunk))

    def _finish(self, ticket: _Ticket, last: Chunk) -> None:
        request_id = ticket.sequence.request.request_id
        with self._wake:
            # A cancel may cross the natural end; the first one wins.
            if self._open.get(request_id) is not ticket:
                return
            del self._open[request_id]
        if ticket.joined:
            slot = self._scheduler.remove(request_id)
            if slot is not None:
                self._forward.release(slot, len(ticket.sequence.ids))
        self._outbox.append((ticket, last))

    def _publish(self) -> None:
        """Hand out this step's chunks and counters, and tell who waits for the last one."""
        steps, slots = self._steps, self._forward.slots
        self._stats = EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            tokens_generated=self._tokens,
            steps=steps,
            batch_fill=self._filled / (steps * slots) if steps else 0.0,
        )
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Ticket, Chunk]]] = {}
        for ticket, chunk in self._outbox:
            by_loop.setdefault(ticket.loop, []).append((ticket, chunk))
        self._outbox.clear()
        for loop, batch in by_loop.items():
            if not _call(loop, _deliver, batch):
                for ticket, _ in batch:
                    self._leave(ticket)
        with self._wake:
            idle, self._idle = ([], self._idle) if self._open else (self._idle, [])
        for loop, future in idle:
            _call(loop, _resolve, future)


def _finite(row: Row) -> Row | str:
    if np.isnan(row).any() or not np.isfinite(row.max()):
        return "the model's output for this request was not a number"
    return row


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


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
