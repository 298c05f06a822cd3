"""All that a batch keeps of one request. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from inference.batching.draw_summaries import query_for
from inference.batching.sequence import Sequence
from inference.ports import WHOLE_ROW, LogitsQuery, LogitsRow, ScheduledTokens, StepInput
from inference.sampling.choose import logprobs, uniform
from inference.types import Chunk, FinishReason, GenerationRequest, TokenLogprob
from inference.watermark.keys import MarkKey
from inference.watermark.marking import AnswerMark

Piece = Callable[[int], bytes]
"""The bytes of a token."""


@dataclass(eq=False, slots=True)
class BatchEntry:
    """One request of a batch, from joining to its last chunk.

    ``joined_s`` is the clock's time when it joined, ``first_step`` the number of the step that first computed tokens of
    it, None while it waits.
    """

    sequence: Sequence
    mark: AnswerMark | None
    joined_s: float
    first_step: int | None = None
    request: GenerationRequest = field(init=False)

    def __post_init__(self) -> None:
        self.request = self.sequence.request

    @property
    def draw(self) -> float:
        """The number in [0, 1) that draws the next token."""
        return uniform(self.request.request_id, self.request.sampling.seed, self.sequence.output_tokens)

    @property
    def mark_key(self) -> MarkKey | None:
        return self.mark.key if self.mark is not None else None

    def mark_context(self) -> tuple[int, ...] | None:
        """Context that marks the next token; None where it is drawn unmarked. Asked once a token, as asking counts."""
        if self.mark is None:
            return None
        return self.mark.context(self.sequence.ids[self.sequence.input_tokens :])

    def step_input(self, scheduled: ScheduledTokens) -> StepInput:
        """Scheduled tokens with their ids, and the query for the logits that the next draw needs."""
        request = self.request
        adapter = (request.tenant, request.adapter) if request.adapter else None
        tokens = self.sequence.ids[scheduled.start : scheduled.start + scheduled.count]
        return StepInput(scheduled, tokens, adapter, self._query() if scheduled.last else WHOLE_ROW)

    def accept(self, token: int, row: LogitsRow | None, piece: Piece) -> Chunk | None:
        """Add a drawn token; the chunk that it completes, if any. ``row`` is read for log-probabilities only."""
        logprob = self._logprob(token, row, piece) if row is not None else None
        text = piece(token)
        if self.mark is not None:
            self.mark.accept(text)
        chunk = self.sequence.accept(token, text, logprob)
        return chunk if chunk is None else self._with_account(chunk)

    def end(self, finish: FinishReason, error: str | None = None) -> Chunk:
        """The last chunk, for an end that no token brought."""
        return self._with_account(self.sequence.end(finish, error))

    def _query(self) -> LogitsQuery:
        return query_for(self.request.sampling, lambda: self.draw, marked=self.mark_key is not None)

    def _logprob(self, token: int, row: LogitsRow, piece: Piece) -> TokenLogprob:
        logprob = logprobs(row, token, self.request.sampling.logprobs)
        return replace(logprob, pieces=(piece(logprob.token), *(piece(other) for other, _ in logprob.top)))

    def _with_account(self, chunk: Chunk) -> Chunk:
        """The last chunk of an answer says what was marked."""
        if chunk.finish is None or self.mark is None:
            return chunk
        return replace(chunk, mark=self.mark.account)
