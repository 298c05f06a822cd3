"""Requests computed together, one step at a time. No threads, no clock, no torch."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items

import numpy as np

from inference.ports import FeedTokens, Forward, Row
from inference.sampling import choose, uniform
from inference.scheduler import Feed, QueueFull, Scheduler
from inference.sequence import Sequence
from inference.types import Chunk, EngineStats, FinishReason


class Batch:
    """The running and waiting requests of one engine; requests join and leave between steps.

    Of one thread at a time. Every sequence that joins ends with one chunk that has ``finish`` set,
    returned by ``join``, ``leave`` or ``step``.
    """

    def __init__(self, forward: Forward, *, max_waiting: int) -> None:
        self._forward = forward
        self._scheduler = Scheduler(slots=forward.slots, budget=forward.budget, max_waiting=max_waiting)
        self._sequences: dict[str, Sequence] = {}
        self._steps = self._tokens = self._filled = 0

    def join(self, sequence: Sequence) -> Chunk | None:
        """Queue a sequence whose request id is not here yet; its end where the queue is full."""
        request = sequence.request
        try:
            self._scheduler.add(request.request_id, request.tenant, sequence.input_tokens)
        except QueueFull:
            error = "the engine's queue is full; try again later or send it to another engine"
            return sequence.end(FinishReason.ERROR, error)
        self._sequences[request.request_id] = sequence
        return None

    def leave(self, request_id: str) -> Chunk | None:
        """Take a request out early; its last chunk, or None where it is not here (any more)."""
        if request_id not in self._sequences:
            return None
        return self._out(request_id).end(FinishReason.CANCELLED)

    def step(self) -> list[Chunk]:
        """Compute the next tokens of whoever has a slot; the chunks that come of them."""
        feeds = self._scheduler.plan()
        if not feeds:
            return []
        self._steps += 1
        self._filled += len(feeds)
        chunks = [self._apply(feed, outcome) for feed, outcome in self._compute(feeds)]
        return [chunk for chunk in chunks if chunk is not None]

    def stats(self) -> EngineStats:
        """Counters as of now."""
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            tokens_generated=self._tokens,
            steps=self._steps,
            batch_fill=self._filled / (self._steps * self._forward.slots) if self._steps else 0.0,
        )

    def _compute(self, feeds: Items[Feed]) -> Iterable[tuple[Feed, Row | str | None]]:
        """Logits for each feed, None where its prompt is not through, or why it failed.

        A fault in a shared pass is hunted down by halving, so only the guilty request fails;
        computing the others again writes the same values again.
        """
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
        return self._sequences[feed.request_id].ids[feed.start : feed.start + feed.count]

    def _apply(self, feed: Feed, outcome: Row | str | None) -> Chunk | None:
        if isinstance(outcome, str):
            return self._out(feed.request_id).end(FinishReason.ERROR, outcome)
        self._scheduler.fed(feed, drawn=outcome is not None)
        if outcome is None:
            return None
        sequence = self._sequences[feed.request_id]
        sampling = sequence.request.sampling
        draw = uniform(feed.request_id, sampling.seed, sequence.output_tokens)
        token = choose(outcome, sampling, draw)
        if token == self._forward.end:
            return self._out(feed.request_id).end(FinishReason.STOP)
        self._tokens += 1
        chunk = sequence.accept(token, self._forward.piece(token))
        if chunk is not None and chunk.finish is not None:
            self._out(feed.request_id)
        return chunk

    def _out(self, request_id: str) -> Sequence:
        sequence = self._sequences.pop(request_id)
        slot = self._scheduler.remove(request_id)
        if slot is not None:
            self._forward.release(slot, len(sequence.ids))
        return sequence


def _finite(row: Row) -> Row | str:
    if np.isnan(row).any() or not np.isfinite(row.max()):
        return "the model's output for this request was not a number"
    return row
