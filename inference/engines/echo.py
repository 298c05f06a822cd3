"""An engine without a model: it says the last user turn again, word by word. No torch."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from inference.batching.sequence import Sequence
from inference.batching.streams import StreamEngine
from inference.types import Chunk, ContextExceeded, FinishReason, GenerationRequest


@dataclass(eq=False, slots=True)
class _EchoRun:
    sequence: Sequence
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class EchoEngine(StreamEngine[_EchoRun]):
    """An ``InferenceEngine`` for load tests and pipeline tests; deterministic.

    A token is a word with the spaces after it, so tokens <= bytes holds here too. ``delay`` is the
    time between tokens in seconds. There is no batch: every request runs at once; a step is one word
    of one answer, and answers that are cancelled end at their next word.
    """

    def __init__(
        self,
        *,
        delay: float = 0.0,
        models: tuple[str, ...] = ("echo",),
        max_context: int = 4096,
        max_running: int = 4096,
    ) -> None:
        super().__init__(models, max_context, max_running)
        self._delay = delay

    def _accept(self, request: GenerationRequest) -> _EchoRun:
        size = sum(len(_words(turn.text)) for turn in request.turns)
        if size + request.max_tokens > self.max_context:
            raise ContextExceeded(
                f"expected at most {self.max_context} tokens in all, got {size} input tokens and "
                f"max_tokens {request.max_tokens}; shorten the input or lower max_tokens"
            )
        return _EchoRun(Sequence(request, [0] * size))

    async def _answer(self, run: _EchoRun) -> AsyncGenerator[Chunk, None]:
        users = [turn.text for turn in run.sequence.request.turns if turn.role == "user"]
        for word in _words(users[-1] if users else ""):
            await asyncio.sleep(self._delay)
            if run.cancelled:
                break
            self._steps += 1
            chunk = run.sequence.accept(0, word.encode())
            if chunk is not None:
                yield chunk
                if chunk.finish is not None:
                    return
        yield run.sequence.end(FinishReason.CANCELLED if run.cancelled else FinishReason.STOP)


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text)
