"""Requests computed together, one step at a time. No threads, no torch; the clock is given."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from inference.batching.blocks import BlockPool
from inference.batching.fairness import effective_weight
from inference.batching.isolate import Outcome, compute
from inference.batching.prefix import PrefixKeys
from inference.batching.quarantine import Quarantine
from inference.batching.scheduler import QueueFull, Scheduler
from inference.batching.sequence import Sequence
from inference.batching.shortlist import ShortRow, ask, draw_short
from inference.batching.step_times import StepTimes
from inference.ports import WHOLE, Forward, LogitsRow, ScheduledTokens, Shortlist, StepInput
from inference.sampling.choose import adjusted, choose, logprobs, shortlist, uniform
from inference.types import Chunk, EngineStats, FinishReason, QueuePosition, TokenLogprob
from inference.watermark.marking import AnswerMark, Marker
from inference.watermark.tournament import MarkedRow, draw_marked

Drawable: TypeAlias = tuple[ScheduledTokens, LogitsRow | Shortlist]
Contexts: TypeAlias = Mapping[str, tuple[int, ...] | None]

CALM_STEPS = 64
"""Steps without running out of memory after which the batch may grow again."""


class Batch:
    """The running and waiting requests of one engine; requests join and leave between steps.

    Of one thread at a time. Every sequence that joins ends with one chunk that has ``finish`` set, returned by
    ``join``, ``leave`` or ``step``. ``clock`` gives steady seconds. ``reuse`` False keeps no prefixes.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        max_waiting: int,
        clock: Callable[[], float],
        quarantine: Quarantine | None = None,
        reuse: bool = True,
        marker: Marker | None = None,
    ) -> None:
        if forward.blocks * forward.block_size < forward.max_context:
            raise ValueError("expected blocks for at least one request of the full context")
        self._forward, self._clock, self._reuse, self._marker = forward, clock, reuse, marker
        self._marks: dict[str, AnswerMark] = {}
        # Cached blocks live no longer than this object, so neither does the secret that names them.
        self._keys = PrefixKeys(secrets.token_bytes(32))
        self._pool = BlockPool(forward.blocks, forward.block_size, self._keys)
        self._scheduler = Scheduler(
            slots=forward.slots, budget=forward.budget, max_waiting=max_waiting, pool=self._pool
        )
        self._quarantine = quarantine or Quarantine()
        self._pace = StepTimes()
        self._sequences: dict[str, Sequence] = {}
        self._began: dict[str, int] = {}
        self._joined: dict[str, float] = {}
        self._waited_s, self._taken = 0.0, 0
        self._steps = self._tokens = self._filled = self._calm = 0

    def join(self, sequence: Sequence) -> Chunk | None:
        """Queue a sequence whose request id is not here yet; its end where it cannot be taken."""
        request = sequence.request
        left = self._quarantine.left(request.tenant, self._clock())
        if left:
            error = f"requests of this tenant broke the engine repeatedly; refused for another {left:.0f} s"
            return sequence.end(FinishReason.ERROR, error)
        try:
            mark = self._marker(request) if self._marker is not None else None
        except Exception as fault:
            # such as a tenant whose key this worker was not granted: unmarked it must not answer, nor end the others'
            return sequence.end(FinishReason.ERROR, f"{type(fault).__name__} while its watermark was prepared")
        root = self._keys.root(request.tenant, sequence.lineage) if self._reuse else b""
        weight = effective_weight(request.weight, request.risk)
        try:
            self._scheduler.add(request.request_id, request.tenant, sequence.ids, root=root, weight=weight)
        except QueueFull:
            error = "the engine's queue is full; try again later or send it to another engine"
            return sequence.end(FinishReason.ERROR, error)
        self._sequences[request.request_id] = sequence
        self._joined[request.request_id] = self._clock()
        if mark is not None:
            self._marks[request.request_id] = mark
        late = self._refuse_if_late(sequence)
        return late and self._accounted(late)

    def leave(self, request_id: str) -> Chunk | None:
        """Take a request out early; its last chunk, or None where it is not here (any more)."""
        if request_id not in self._sequences:
            return None
        chunk = self._out(request_id).end(FinishReason.CANCELLED)
        self._rearrange()
        return self._accounted(chunk)

    def step(self) -> list[Chunk]:
        """Compute the next tokens of whoever runs; the chunks that come of them."""
        began = self._clock()
        feeds = self._scheduler.plan()
        if not feeds:
            return []
        self._rearrange()
        outcomes = self._compute(feeds)
        self._steps += 1
        self._filled += len(feeds)
        drawn = self._draw([(feed, row) for feed, row in outcomes if isinstance(row, np.ndarray | Shortlist)])
        chunks = [self._apply(feed, outcome, drawn.get(feed.request_id)) for feed, outcome in outcomes]
        self._rearrange()
        self._pace.step(self._clock() - began)
        return [self._accounted(chunk) for chunk in chunks if chunk is not None]

    def queue_position(self, request_id: str) -> QueuePosition | None:
        """Where a request stands, None where it is not here."""
        if request_id not in self._sequences:
            return None
        ahead = self._scheduler.queue_position(request_id)
        return QueuePosition(0, 0.0) if ahead is None else QueuePosition(ahead + 1, self._wait_s(ahead))

    def stats(self) -> EngineStats:
        """Counters as of now."""
        work, pool = self._scheduler.work, self._pool
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            tokens_generated=self._tokens,
            steps=self._steps,
            batch_fill=self._filled / (self._steps * self._forward.slots) if self._steps else 0.0,
            computed=work.computed,
            reused=work.reused,
            preempted=work.preempted,
            blocks_held=pool.total - pool.available,
            blocks_total=pool.total,
            quarantined=self._quarantine.held(self._clock()),
            step_s=self._pace.step_s,
            begun=self._taken,
            waited_s=self._waited_s,
        )

    def _refuse_if_late(self, sequence: Sequence) -> Chunk | None:
        """The end of a request whose first token is not to be had before its deadline."""
        deadline = sequence.request.deadline_s
        ahead = self._scheduler.queue_position(sequence.request.request_id)
        if deadline is None or ahead is None:
            return None
        wait = self._wait_s(ahead)
        if wait is None:
            return None
        reading = -(-sequence.input_tokens // self._scheduler.budget) * self._pace.step_s
        if wait + reading <= deadline:
            return None
        error = f"expected to begin after {wait + reading:.1f} s, past the deadline in {deadline:.1f} s"
        return self._out(sequence.request.request_id).end(FinishReason.DEADLINE, error)

    def _wait_s(self, ahead: int) -> float | None:
        slots = self._scheduler.slots
        return self._pace.wait_s(ahead, slots, max(0, slots - self._scheduler.running))

    def _compute(self, feeds: tuple[ScheduledTokens, ...]) -> list[Outcome]:
        """Outcomes of the feeds; none where memory ran out, and the next plan holds half as much."""
        for feed in feeds:
            self._began.setdefault(feed.request_id, self._steps)
            joined = self._joined.pop(feed.request_id, None)
            if joined is not None:
                self._taken += 1
                self._waited_s += self._clock() - joined
        try:
            outcomes = compute(self._forward, [self._with_tokens(feed) for feed in feeds])
        except MemoryError:
            self._calm = 0
            if self._scheduler.shrink():
                return []
            return [(feed, "out of memory while computing this request alone") for feed in feeds]
        self._calm += 1
        if self._calm % CALM_STEPS == 0:
            self._scheduler.grow_back()
        for feed, outcome in outcomes:
            if isinstance(outcome, str):
                self._quarantine.strike(self._sequences[feed.request_id].request.tenant, self._clock())
        return outcomes

    def _with_tokens(self, feed: ScheduledTokens) -> StepInput:
        sequence = self._sequences[feed.request_id]
        request = sequence.request
        adapter = (request.tenant, request.adapter) if request.adapter else None
        asked = WHOLE
        if feed.last:
            mark = self._marks.get(feed.request_id)
            marked = mark is not None and mark.key is not None
            asked = ask(request.sampling, lambda: self._uniform(sequence), marked=marked)
        return StepInput(feed, sequence.ids[feed.start : feed.start + feed.count], adapter, asked)

    def _draw(self, rows: Items[Drawable]) -> dict[str, int | str]:
        """The next token of each request, or why there is none: a fault is hunted down as that of a pass is."""
        # asked once a token, however often it is drawn
        contexts = {feed.request_id: self._context(feed.request_id) for feed, _ in rows}
        return self._drawn_apart(rows, contexts)

    def _drawn_apart(self, rows: Items[Drawable], contexts: Contexts) -> dict[str, int | str]:
        try:
            return {**self._drawn(rows, contexts)}
        except Exception as fault:
            if len(rows) > 1:
                half = len(rows) // 2
                return self._drawn_apart(rows[:half], contexts) | self._drawn_apart(rows[half:], contexts)
            name = rows[0][0].request_id
            self._quarantine.strike(self._sequences[name].request.tenant, self._clock())
            return {name: f"{type(fault).__name__} while drawing a token of this request"}

    def _context(self, name: str) -> tuple[int, ...] | None:
        """What the next token's mark hangs on; None where it is drawn unmarked."""
        sequence, mark = self._sequences[name], self._marks.get(name)
        return mark.context(sequence.ids[sequence.input_tokens :]) if mark is not None else None

    def _drawn(self, rows: Items[Drawable], contexts: Contexts) -> dict[str, int]:
        """The next token of each request; those with a watermark are drawn together."""
        tokens: dict[str, int] = {}
        marked: list[MarkedRow] = []
        short: list[ShortRow] = []
        for feed, logits in rows:
            name, sequence = feed.request_id, self._sequences[feed.request_id]
            sampling, context = sequence.request.sampling, contexts[name]
            key = self._marks[name].key if context is not None else None
            if isinstance(logits, Shortlist) and not len(logits.ids):
                tokens[name] = logits.drawn
                continue
            draw = self._uniform(sequence)
            if isinstance(logits, Shortlist):
                short.append(ShortRow(name, logits, sampling, draw, context or (), key))
                continue
            row = adjusted(logits, sampling, sequence.ids, sequence.input_tokens)
            if key is None:
                tokens[name] = choose(row, sampling, draw)
            else:
                marked.append(MarkedRow(name, *shortlist(row, sampling), context or (), key, draw))
        return tokens | draw_marked(marked) | draw_short(short)

    @staticmethod
    def _uniform(sequence: Sequence) -> float:
        request = sequence.request
        return uniform(request.request_id, request.sampling.seed, sequence.output_tokens)

    def _apply(
        self, feed: ScheduledTokens, outcome: LogitsRow | Shortlist | str | None, token: int | str | None
    ) -> Chunk | None:
        if isinstance(outcome, str):
            return self._out(feed.request_id, spoiled=True).end(FinishReason.ERROR, outcome)
        if isinstance(token, str):
            return self._out(feed.request_id, spoiled=True).end(FinishReason.ERROR, token)
        self._scheduler.fed(feed, drawn=token is not None)
        if outcome is None or token is None:
            return None
        sequence = self._sequences[feed.request_id]
        sampling = sequence.request.sampling
        if token == self._forward.end:
            return self._out(feed.request_id).end(FinishReason.STOP)
        self._tokens += 1
        told = None
        if sampling.logprobs:
            row = outcome.whole() if isinstance(outcome, Shortlist) else outcome
            told = self._named(logprobs(row, token, sampling.logprobs))
        piece = self._forward.piece(token)
        if feed.request_id in self._marks:
            self._marks[feed.request_id].accept(piece)
        chunk = sequence.accept(token, piece, told)
        if chunk is not None and chunk.finish is not None:
            self._out(feed.request_id)
        return chunk

    def _named(self, told: TokenLogprob) -> TokenLogprob:
        piece = self._forward.piece
        return replace(told, pieces=(piece(told.token), *(piece(token) for token, _ in told.top)))

    def _accounted(self, chunk: Chunk) -> Chunk:
        """The last chunk of an answer says what was marked."""
        mark = self._marks.pop(chunk.request_id, None) if chunk.finish is not None else None
        return chunk if mark is None else replace(chunk, mark=mark.account)

    def _out(self, request_id: str, *, spoiled: bool = False) -> Sequence:
        sequence = self._sequences.pop(request_id)
        self._joined.pop(request_id, None)
        self._scheduler.remove(request_id, spoiled=spoiled)
        if request_id in self._began:
            self._pace.stay(self._steps - self._began.pop(request_id))
        return sequence

    def _rearrange(self) -> None:
        moves = self._pool.take_moves()
        if moves:
            self._forward.rearrange(moves)
