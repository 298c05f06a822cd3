"""Requests computed together, one step at a time. No threads, no clock, no torch."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace

import numpy as np

from inference.ports import FeedTokens, Forward, Row
from inference.sampling import choose, shortlist, uniform
from inference.scheduler import Feed, QueueFull, Scheduler
from inference.sequence import Sequence
from inference.types import Chunk, EngineStats, FinishReason
from inference.watermark.marking import AnswerMark, Marker
from inference.watermark.tournament import MarkedRow, draw_marked


class Batch:
    """The running and waiting requests of one engine; requests join and leave between steps.

    Of one thread at a time. Every sequence that joins ends with one chunk that has ``finish`` set,
    returned by ``join``, ``leave`` or ``step``.
    """

    def __init__(self, forward: Forward, *, max_waiting: int, marker: Marker | None = None) -> None:
        self._forward = forward
        self._marker = marker
        self._marks: dict[str, AnswerMark] = {}
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
        if self._marker is not None:
            self._marks[request.request_id] = self._marker(request)
        return None

    def leave(self, request_id: str) -> Chunk | None:
        """Take a request out early; its last chunk, or None where it is not here (any more)."""
        if request_id not in self._sequences:
            return None
        return self._accounted(self._out(request_id).end(FinishReason.CANCELLED))

    def step(self) -> list[Chunk]:
        """Compute the next tokens of whoever has a slot; the chunks that come of them."""
        feeds = self._scheduler.plan()
        if not feeds:
            return []
        self._steps += 1
        self._filled += len(feeds)
        outcomes = self._compute(feeds)
        drawn = self._draw([(feed, row) for feed, row in outcomes if isinstance(row, np.ndarray)])
        chunks = [self._apply(feed, row, drawn.get(feed.request_id)) for feed, row in outcomes]
        return [self._accounted(chunk) for chunk in chunks if chunk is not None]

    def stats(self) -> EngineStats:
        """Counters as of now."""
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            tokens_generated=self._tokens,
            steps=self._steps,
            batch_fill=self._filled / (self._steps * self._forward.slots) if self._steps else 0.0,
        )

    def _compute(self, feeds: Items[Feed]) -> list[tuple[Feed, Row | str | None]]:
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

    def _draw(self, rows: Items[tuple[Feed, Row]]) -> dict[str, int]:
        """The next token of each request; those with a watermark are drawn together."""
        tokens: dict[str, int] = {}
        marked: list[MarkedRow] = []
        for feed, row in rows:
            name, sequence = feed.request_id, self._sequences[feed.request_id]
            sampling, mark = sequence.request.sampling, self._marks.get(name)
            draw = uniform(name, sampling.seed, sequence.output_tokens)
            context = mark.context(sequence.ids[sequence.input_tokens :]) if mark is not None else None
            if mark is None or context is None or mark.key is None:
                tokens[name] = choose(row, sampling, draw)
            else:
                marked.append(MarkedRow(name, *shortlist(row, sampling), context, mark.key, draw))
        return tokens | draw_marked(marked)

    def _apply(self, feed: Feed, outcome: Row | str | None, token: int | None) -> Chunk | None:
        if isinstance(outcome, str):
            return self._out(feed.request_id).end(FinishReason.ERROR, outcome)
        self._scheduler.fed(feed, drawn=token is not None)
        if token is None:
            return None
        sequence = self._sequences[feed.request_id]
        if token == self._forward.end:
            return self._out(feed.request_id).end(FinishReason.STOP)
        self._tokens += 1
        piece = self._forward.piece(token)
        if feed.request_id in self._marks:
            self._marks[feed.request_id].accept(piece)
        chunk = sequence.accept(token, piece)
        if chunk is not None and chunk.finish is not None:
            self._out(feed.request_id)
        return chunk

    def _accounted(self, chunk: Chunk) -> Chunk:
        """The last chunk of an answer says what was marked."""
        mark = self._marks.pop(chunk.request_id, None) if chunk.finish is not None else None
        return chunk if mark is None else replace(chunk, mark=mark.account)

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
