"""One request on its way through an engine: its tokens, its text, its chunks. No torch."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from inference.batching.text import TextAssembler
from inference.types import Chunk, ContextExceeded, FinishReason, GenerationRequest, InvalidRequest, TokenLogprob


class Sequence:
    """Tokens of one answer and the chunks cut from them; chunk positions have no gap or overlap.

    ``lineage`` names the weights its cached prefix belongs to.
    """

    def __init__(self, request: GenerationRequest, prompt: Tokens[int], lineage: bytes = b"") -> None:
        self.request = request
        self.lineage = lineage
        self.ids = list(prompt)
        self.input_tokens = len(prompt)
        self.output_tokens = 0
        self._sent = 0
        self._logprobs: list[TokenLogprob] = []
        self._text = TextAssembler(request.sampling.stop)

    def accept(self, token: int, piece: bytes, logprob: TokenLogprob | None = None) -> Chunk | None:
        """Add a drawn token; the chunk it completes, if any (the last one ends the answer)."""
        self.ids.append(token)
        self.output_tokens += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._text.push(piece)
        if self._text.stopped:
            return self._chunk(text, FinishReason.STOP)
        if self.output_tokens >= self.request.max_tokens:
            text += self._text.flush()
            finish = FinishReason.STOP if self._text.stopped else FinishReason.LENGTH
            return self._chunk(text, finish)
        return self._chunk(text, None) if text else None

    def end(self, finish: FinishReason, error: str | None = None) -> Chunk:
        """The last chunk, for an end that no token brought (end mark, cancelling, fault)."""
        return self._chunk(self._text.flush(), finish, error)

    def _chunk(self, text: str, finish: FinishReason | None, error: str | None = None) -> Chunk:
        position, self._sent = self._sent, self.output_tokens
        logprobs, self._logprobs = tuple(self._logprobs), []
        return Chunk(
            request_id=self.request.request_id,
            text=text,
            position=position,
            tokens=self.output_tokens - position,
            finish=finish,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            error=error,
            logprobs=logprobs,
        )


def failure(request_id: str, fault: InvalidRequest) -> Chunk:
    """The only chunk of a request that never ran."""
    finish = FinishReason.CONTEXT if isinstance(fault, ContextExceeded) else FinishReason.ERROR
    return Chunk(request_id, "", 0, 0, finish, 0, 0, str(fault))
