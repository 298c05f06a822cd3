"""An engine that computes its requests in batches: asyncio callers in front, one worker thread behind. No torch."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncGenerator, Iterable

from inference.batching.batch import Batch
from inference.batching.inbox import OpenRequest, RequestInbox
from inference.batching.options import BatchOptions
from inference.batching.sequence import Sequence, failure
from inference.bounds import check_ids, check_request
from inference.ports import Forward
from inference.types import (
    Chunk,
    ContextExceeded,
    EngineStats,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    QueuePosition,
)

_JOIN_S = 0.25


class BatchingEngine:
    """An ``InferenceEngine`` over any ``Forward``; starts its worker thread, and one that watches it, at once.

    A step that lasts longer than ``options.stall_s`` is given up: its requests end with an error, ``stats().stalled``
    says so, and the process has to be replaced.
    """

    def __init__(self, forward: Forward, models: tuple[str, ...], options: BatchOptions | None = None) -> None:
        options = options or BatchOptions()
        self.models = models
        self.max_context = forward.max_context
        self._forward = forward
        self._batch = Batch(forward, options, clock=time.monotonic)
        self._stats = self._batch.stats()
        self._inbox = RequestInbox()
        self._step_began: float | None = None
        self._ended = threading.Event()
        self._worker = threading.Thread(target=self._work, name="inference", daemon=True)
        self._worker.start()
        stall = (options.stall_s,)
        self._watcher = threading.Thread(target=self._watch, args=stall, name="inference-watch", daemon=True)
        self._watcher.start()

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """See ``InferenceEngine.submit``."""
        self._inbox.require_open()
        try:
            check_request(request)
            opened = OpenRequest(self._sequence(request), asyncio.get_running_loop())
            self._inbox.enter(opened)
        except InvalidRequest as fault:
            yield failure(request.request_id, fault)
            return
        finished = False
        try:
            while not finished:
                chunk = await opened.chunks.get()
                finished = chunk.finish is not None
                yield chunk
        finally:
            if not finished:
                self._inbox.leave(opened)

    def cancel(self, request_id: str) -> bool:
        """See ``InferenceEngine.cancel``."""
        opened = self._inbox.find(request_id)
        if opened is None:
            return False
        self._inbox.leave(opened)
        return True

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """See ``InferenceEngine.queue_position``."""
        return await self._inbox.position(request_id)

    async def drain(self) -> None:
        """See ``InferenceEngine.drain``."""
        await self._inbox.drain()

    def stats(self) -> EngineStats:
        """See ``InferenceEngine.stats``."""
        return self._stats

    async def close(self) -> None:
        """See ``InferenceEngine.close``."""
        self._inbox.stop()
        # a stuck thread cannot be ended, only left behind; that it is stuck may show only while this waits for it
        while self._worker.is_alive() and not self._stats.stalled:
            await asyncio.to_thread(self._worker.join, _JOIN_S)
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

    def _work(self) -> None:
        """Body of the worker thread."""
        try:
            while self._take_in():
                self._step_began = time.monotonic()
                chunks = self._batch.step()
                self._step_began = None
                self._publish(chunks)
        except Exception as fault:
            self._step_began = None
            # without this the thread would die silently and every caller wait for ever
            self._give_up(f"the engine stopped on {type(fault).__name__}; start a new one")

    def _watch(self, stall_s: float) -> None:
        """Body of the thread that notices a step that hangs."""
        while not self._ended.wait(min(1.0, stall_s / 4)):
            began = self._step_began
            if began is not None and time.monotonic() - began > stall_s:
                self._stats = dataclasses.replace(self._stats, stalled=True)
                self._give_up(f"a step of the engine has not come back for {stall_s:g} s; start a new one")
                return

    def _take_in(self) -> bool:
        """Let requests join and leave; waits while there is nothing to do. False to stop."""
        arrivals = self._inbox.take()
        ends = [self._batch.join(opened.sequence) for opened in arrivals.joining]
        ends += [self._batch.leave(request_id) for request_id in arrivals.leaving]
        for query in arrivals.queries:
            query.answer.resolve(self._batch.queue_position(query.request_id))
        self._publish(chunk for chunk in ends if chunk is not None)
        return not arrivals.stopping

    def _publish(self, chunks: Iterable[Chunk]) -> None:
        """Hand out chunks and counters."""
        if not self._stats.stalled:
            self._stats = self._batch.stats()
        self._inbox.deliver(chunks)

    def _give_up(self, error: str) -> None:
        requests = self._inbox.give_up()
        self._publish(opened.sequence.end(FinishReason.ERROR, error) for opened in requests)
