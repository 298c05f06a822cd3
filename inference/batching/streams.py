"""A base for engines whose requests run each by itself. No torch."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Generic, Protocol, TypeVar

from inference.batching.sequence import failure
from inference.bounds import check_request
from inference.types import Chunk, EngineClosed, EngineStats, GenerationRequest, InvalidRequest, QueuePosition


class Running(Protocol):
    """One request under way."""

    def cancel(self) -> None:
        """Ask for an early end."""


R = TypeVar("R", bound=Running)


class StreamEngine(ABC, Generic[R]):
    """An ``InferenceEngine`` without a batch; of one event loop at a time. ``_answer`` makes a request's chunks."""

    def __init__(self, models: tuple[str, ...], max_context: int, max_running: int) -> None:
        self.models = models
        self.max_context = max_context
        self._max_running = max_running
        self._open: dict[str, R] = {}
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._tokens = 0
        self._steps = 0

    @abstractmethod
    def _accept(self, request: GenerationRequest) -> R:
        """The run of a request that ``_check`` let in. Raises InvalidRequest."""

    @abstractmethod
    def _answer(self, run: R) -> AsyncGenerator[Chunk, None]:
        """Its chunks, the last with ``finish`` set."""

    async def submit(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """See ``InferenceEngine.submit``."""
        if self._refusing:
            raise EngineClosed("the engine is draining; send the request to another one")
        try:
            self._check(request)
            run = self._accept(request)
        except InvalidRequest as fault:
            yield failure(request.request_id, fault)
            return
        self._idle.clear()
        self._open[request.request_id] = run
        try:
            async with contextlib.aclosing(self._answer(run)) as chunks:
                async for chunk in chunks:
                    self._tokens += chunk.tokens
                    yield chunk
        finally:
            del self._open[request.request_id]
            if not self._open:
                self._idle.set()

    def cancel(self, request_id: str) -> bool:
        """See ``InferenceEngine.cancel``; from the loop that reads the answer."""
        run = self._open.get(request_id)
        if run is None:
            return False
        run.cancel()
        return True

    async def queue_position(self, request_id: str) -> QueuePosition | None:
        """See ``InferenceEngine.queue_position``; nothing waits here."""
        return QueuePosition(0, 0.0) if request_id in self._open else None

    async def drain(self) -> None:
        """See ``InferenceEngine.drain``."""
        self._refusing = True
        await self._idle.wait()

    def stats(self) -> EngineStats:
        """See ``InferenceEngine.stats``."""
        running = len(self._open)
        return EngineStats(running, 0, self._tokens, self._steps, running / self._max_running)

    async def close(self) -> None:
        """See ``InferenceEngine.close``."""
        self._refusing = True
        for run in self._open.values():
            run.cancel()

    def _check(self, request: GenerationRequest) -> None:
        check_request(request)
        if request.adapter:
            raise InvalidRequest("adapter: this tenant has none of that name")
        if request.request_id in self._open:
            raise InvalidRequest("request_id: a request of this id is already running")
        if len(self._open) >= self._max_running:
            raise InvalidRequest("the engine is full; try again later or send it elsewhere")
