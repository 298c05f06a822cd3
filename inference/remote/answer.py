"""One answer of a model server as chunks that keep the promises of ``inference.types.Chunk``. No IO."""

from __future__ import annotations

from inference.batching.text import TextAssembler
from inference.remote.wire import Event
from inference.types import Chunk, FinishReason, GenerationRequest, input_token_bound


class RemoteAnswer:
    """Chunks of one answer, made from the server's events.

    Output tokens are counted as the server does where it tells, else one for each event with text. Where the request's
    tokens are estimated, counts are reported as they are, also above what was reserved. Else output tokens are at most
    ``max_tokens`` and input tokens at most their bound: words that the server's template adds are charged to no tenant.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self._request = request
        self._bound = input_token_bound(request.turns)
        self._text = TextAssembler(request.sampling.stop)
        self._finish: FinishReason | None = None
        self._sent = self._input = 0
        self.output_tokens = 0

    def accept(self, event: Event) -> Chunk | None:
        """Take in an event; the chunk it completes, if any. The last one comes of ``end``, after the final usage."""
        limit = self._request.max_tokens
        counted = self.output_tokens + bool(event.text)
        if event.usage is not None:
            self._input = max(self._input, self._reported(event.usage.prompt_tokens, self._bound))
            counted = max(self.output_tokens, event.usage.completion_tokens)
        if self._finish is not None:
            self.output_tokens = self._reported(counted, limit)
            return None
        if counted > limit:
            # the server goes on where it was told to stop: its text from here on is dropped
            self.output_tokens = self._reported(counted, limit)
            return self.end(FinishReason.LENGTH)
        self.output_tokens, self._finish = counted, event.finish
        text = self._text.push(event.text.encode("utf-8", "replace"))
        if self._text.stopped:
            return self._chunk(text, FinishReason.STOP)
        return self._chunk(text, None) if text else None

    def whole(self) -> Chunk | None:
        """The last chunk, once nothing more comes; None where the server did not say why it ended."""
        return None if self._finish is None else self.end(self._finish)

    def end(self, finish: FinishReason, error: str | None = None) -> Chunk:
        """The last chunk."""
        text = self._text.flush()
        if self._text.stopped:
            finish = FinishReason.STOP
        if finish is FinishReason.LENGTH:
            self.output_tokens = max(self.output_tokens, self._request.max_tokens)
        return self._chunk(text, finish, error)

    def _reported(self, count: int, reserved: int) -> int:
        return count if self._request.estimated else min(count, reserved)

    def _chunk(self, text: str, finish: FinishReason | None, error: str | None = None) -> Chunk:
        position, self._sent = self._sent, self.output_tokens
        tokens = self.output_tokens - position
        name = self._request.request_id
        return Chunk(name, text, position, tokens, finish, self._input, self.output_tokens, error)
