"""An engine without a model: it says the last user turn again, word by word. No torch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from inference.bounds import check_request
from inference.sequence import Sequence, failure
from inference.types import (
    Chunk,
    ContextExceeded,
    EngineClosed,
    EngineStats,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    Place,
)


class EchoEngine:
    """An ``InferenceEngine`` for load tests and pipeline tests; deterministic.

    A token is a word with the spaces after it, so tokens <= bytes holds here too. ``delay`` is the
    time between tokens in seconds. There is no batch: every request runs at once.
    """

    def __init__(
        self,
        *,
        delay: float = 0.0,
        models: tuple[str, ...] = ("echo",),
        max_context: int = 4096,
        max_running: int = 4096,
    ) -> None:
        self.models = models
        self.max_context = max_context
        self._delay = delay
        self._max_running = max_running
        self._open: dict[str, bool] = {}
        self._refusing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._tokens = 0
        self._steps = 0

    async def submit(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """See ``InferenceEngine.submit``."""
        if self._refusing:
            raise EngineClosed("the engine is draining; send the request to another one")
        try:
            sequence = self._accept(request)
        except InvalidRequest as fault:
            yield failure(request.request_id, fault)
            return
        self._idle.clear()
        self._open[request.request_id] = False
        try:
            async for chunk in self._answer(sequence):
                yield chunk
        finally:
            del self._open[request.request_id]
            if not self._open:
                self._idle.set()

    def cancel(self, request_id: str) -> bool:
        """See ``InferenceEngine.cancel``."""
        if request_id not in self._open:
            return False
        self._open[request_id] = True
        return True

    async def place(self, request_id: str) -> Place | None:
        """See ``InferenceEngine.place``; nothing waits here."""
        return Place(0, 0.0) if request_id in self._open else None

    async def drain(self) -> None:
        """See ``InferenceEngine.drain``."""
        self._refusing = True
        await self._idle.wait()

    def stats(self) -> EngineStats:
        """See ``InferenceEngine.stats``; a step is one word of one answer."""
        running = len(self._open)
        return EngineStats(running, 0, self._tokens, self._steps, running / self._max_running)

    async def close(self) -> None:
        """See ``InferenceEngine.close``; answers end at their next word."""
        self._refusing = True
        for request_id in self._open:
            self._open[request_id] = True

    def _accept(self, request: GenerationRequest) -> Sequence:
        check_request(request)
        if request.adapter:
            raise InvalidRequest("adapter: this tenant has none of that name")
        if request.request_id in self._open:
            raise InvalidRequest("request_id: a request of this id is already running")
        if len(self._open) >= self._max_running:
            raise InvalidRequest("the engine is full; try again later or send it elsewhere")
        size = sum(len(_words(turn.text)) for turn in request.turns)
        if size + request.max_tokens > self.max_context:
            raise ContextExceeded(
                f"expected at most {self.max_context} tokens in all, got {size} input tokens and "
                f"max_tokens {request.max_tokens}; shorten the input or lower max_tokens"
            )
        return Sequence(request, [0] * size)

    async def _answer(self, sequence: Sequence) -> AsyncIterator[Chunk]:
        request = sequence.request
        users = [turn.text for turn in request.turns if turn.role == "user"]
        for word in _words(users[-1] if users else ""):
            await asyncio.sleep(self._delay)
            if self._open[request.request_id]:
                break
            self._tokens += 1
            self._steps += 1
            chunk = sequence.accept(0, word.encode())
            if chunk is not None:
                yield chunk
                if chunk.finish is not None:
                    return
        cancelled = self._open[request.request_id]
        yield sequence.end(FinishReason.CANCELLED if cancelled else FinishReason.STOP)


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)
