"""Requests computed together, one step at a time. No threads, no torch; the clock is given."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

from inference.batching.blocks import BlockPool
from inference.batching.draw import DrawnToken, draw_tokens
from inference.batching.entry import BatchEntry
from inference.batching.fairness import effective_weight
from inference.batching.isolate import StepResult, compute
from inference.batching.options import BatchOptions
from inference.batching.prefix import PrefixKeys
from inference.batching.quarantine import Quarantine
from inference.batching.scheduler import QueueFull, Scheduler
from inference.batching.sequence import Sequence
from inference.batching.step_times import StepTimes
from inference.ports import Forward, LogitsRow, RowSummary, ScheduledTokens
from inference.types import Chunk, EngineStats, FinishReason, QueuePosition
from inference.watermark.marking import AnswerMark

CALM_STEPS = 64
"""Steps without running out of memory after which the batch may grow again."""


@dataclass(slots=True)
class _Totals:
    """Counters since the start; ``waited_s`` are the seconds that the ``begun`` requests spent in the queue."""

    steps: int = 0
    slots_used: int = 0
    tokens: int = 0
    begun: int = 0
    waited_s: float = 0.0


class Batch:
    """The running and waiting requests of one engine; requests join and leave between steps.

    Used by one thread at a time. Every sequence that joins ends with one chunk that has ``finish`` set, returned by
    ``join``, ``leave`` or ``step``. ``clock`` gives steady seconds.
    """

    def __init__(
        self,
        forward: Forward,
        options: BatchOptions,
        *,
        clock: Callable[[], float],
        quarantine: Quarantine | None = None,
    ) -> None:
        capacity = forward.blocks * forward.block_size
        if capacity < forward.max_context:
            raise ValueError(f"expected blocks for a request of {forward.max_context} tokens, got {capacity} positions")
        self._forward = forward
        self._options = options
        self._clock = clock
        # cached blocks live no longer than this object, so neither does the secret that names them
        self._keys = PrefixKeys(secrets.token_bytes(32))
        self._pool = BlockPool(forward.blocks, forward.block_size, self._keys)
        self._scheduler = Scheduler(
            slots=forward.slots, budget=forward.budget, max_waiting=options.max_waiting, pool=self._pool
        )
        self._quarantine = quarantine or Quarantine()
        self._times = StepTimes()
        self._entries: dict[str, BatchEntry] = {}
        self._totals = _Totals()
        self._calm_steps = 0

    def join(self, sequence: Sequence) -> Chunk | None:
        """Queue a sequence whose request id is not here yet; its last chunk where it cannot be taken."""
        request = sequence.request
        left = self._quarantine.left(request.tenant, self._clock())
        if left:
            error = f"requests of this tenant broke the engine repeatedly; refused for another {left:.0f} s"
            return sequence.end(FinishReason.ERROR, error)
        try:
            mark = self._mark(sequence)
        except Exception as fault:
            # such as a tenant whose key this worker was not granted: unmarked it must not answer, nor end the others'
            return sequence.end(FinishReason.ERROR, f"{type(fault).__name__} while its watermark was prepared")
        root = self._keys.root(request.tenant, sequence.lineage) if self._options.keep_prefixes else b""
        weight = effective_weight(request.weight, request.risk)
        try:
            self._scheduler.add(request.request_id, request.tenant, sequence.ids, root=root, weight=weight)
        except QueueFull:
            error = "the engine's queue is full; try again later or send it to another engine"
            return sequence.end(FinishReason.ERROR, error)
        entry = BatchEntry(sequence, mark, self._clock())
        self._entries[request.request_id] = entry
        return self._refuse_if_late(entry)

    def leave(self, request_id: str) -> Chunk | None:
        """Take a request out early; its last chunk, or None where it is not here (any more)."""
        if request_id not in self._entries:
            return None
        chunk = self._remove(request_id).end(FinishReason.CANCELLED)
        self._move_blocks()
        return chunk

    def step(self) -> list[Chunk]:
        """Compute and draw the next tokens of the running requests; the chunks that they complete."""
        began = self._clock()
        plan = self._scheduler.plan()
        if not plan:
            return []
        self._move_blocks()
        results = self._compute(plan)
        self._totals.steps += 1
        self._totals.slots_used += len(plan)
        drawn = self._draw(results)
        chunks = [self._apply(result, drawn.get(result.scheduled.request_id)) for result in results]
        self._move_blocks()
        self._times.step(self._clock() - began)
        return [chunk for chunk in chunks if chunk is not None]

    def queue_position(self, request_id: str) -> QueuePosition | None:
        """Position of a request, None where it is not here."""
        if request_id not in self._entries:
            return None
        ahead = self._scheduler.queue_position(request_id)
        return QueuePosition(0, 0.0) if ahead is None else QueuePosition(ahead + 1, self._wait_s(ahead))

    def stats(self) -> EngineStats:
        """Counters as of now."""
        work, totals = self._scheduler.totals, self._totals
        pool = self._pool
        return EngineStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            tokens_generated=totals.tokens,
            steps=totals.steps,
            batch_fill=totals.slots_used / (totals.steps * self._forward.slots) if totals.steps else 0.0,
            computed=work.computed,
            reused=work.reused,
            preempted=work.preempted,
            blocks_held=pool.total - pool.available,
            blocks_total=pool.total,
            quarantined=self._quarantine.count(self._clock()),
            step_s=self._times.step_s,
            begun=totals.begun,
            waited_s=totals.waited_s,
        )

    def _mark(self, sequence: Sequence) -> AnswerMark | None:
        marker = self._options.marker
        return marker(sequence.request) if marker is not None else None

    def _refuse_if_late(self, entry: BatchEntry) -> Chunk | None:
        """The last chunk of a request whose first token cannot be had before its deadline."""
        deadline = entry.request.deadline_s
        ahead = self._scheduler.queue_position(entry.request.request_id)
        if deadline is None or ahead is None:
            return None
        wait = self._wait_s(ahead)
        if wait is None:
            return None
        prompt_steps = -(-entry.sequence.input_tokens // self._scheduler.budget)
        first_token_s = wait + prompt_steps * self._times.step_s
        if first_token_s <= deadline:
            return None
        error = f"expected to begin after {first_token_s:.1f} s, past the deadline in {deadline:.1f} s"
        return self._remove(entry.request.request_id).end(FinishReason.DEADLINE, error)

    def _wait_s(self, ahead: int) -> float | None:
        slots = self._scheduler.slots
        return self._times.wait_s(ahead, slots, max(0, slots - self._scheduler.running))

    def _compute(self, plan: Items[ScheduledTokens]) -> list[StepResult]:
        """Results of the plan; none where memory ran out, and the next plan holds half as much."""
        for scheduled in plan:
            self._count_begin(self._entries[scheduled.request_id])
        inputs = [self._entries[scheduled.request_id].step_input(scheduled) for scheduled in plan]
        try:
            results = compute(self._forward, inputs)
        except MemoryError:
            self._calm_steps = 0
            if self._scheduler.shrink():
                return []
            error = "out of memory while computing this request alone"
            return [StepResult(scheduled, error=error) for scheduled in plan]
        self._calm_steps += 1
        if self._calm_steps % CALM_STEPS == 0:
            self._scheduler.grow_back()
        for result in results:
            if result.error is not None:
                self._strike(result.scheduled.request_id)
        return results

    def _count_begin(self, entry: BatchEntry) -> None:
        if entry.first_step is None:
            entry.first_step = self._totals.steps
            self._totals.begun += 1
            self._totals.waited_s += self._clock() - entry.joined_s

    def _draw(self, results: Items[StepResult]) -> dict[str, DrawnToken]:
        """The next tokens by request, of those that have a row."""
        rows = [(self._entries[one.scheduled.request_id], one.row) for one in results if one.row is not None]
        drawn = {token.request_id: token for token in draw_tokens(rows)}
        for token in drawn.values():
            if token.error is not None:
                self._strike(token.request_id)
        return drawn

    def _strike(self, request_id: str) -> None:
        self._quarantine.strike(self._entries[request_id].request.tenant, self._clock())

    def _apply(self, result: StepResult, drawn: DrawnToken | None) -> Chunk | None:
        """Take in a result and the token drawn from it; the chunk that it completes, if any."""
        request_id = result.scheduled.request_id
        error = result.error or (drawn.error if drawn is not None else None)
        if error is not None:
            return self._remove(request_id, spoiled=True).end(FinishReason.ERROR, error)
        token = drawn.token if drawn is not None else None
        self._scheduler.computed(result.scheduled, drawn=token is not None)
        if token is None or result.row is None:
            return None
        if token == self._forward.end:
            return self._remove(request_id).end(FinishReason.STOP)
        self._totals.tokens += 1
        entry = self._entries[request_id]
        wants_logprobs = entry.request.sampling.logprobs > 0
        chunk = entry.accept(token, _whole(result.row) if wants_logprobs else None, self._forward.piece)
        if chunk is not None and chunk.finish is not None:
            self._remove(request_id)
        return chunk

    def _remove(self, request_id: str, *, spoiled: bool = False) -> BatchEntry:
        """Take a request out; cached blocks of a ``spoiled`` one are not found again."""
        entry = self._entries.pop(request_id)
        self._scheduler.remove(request_id, spoiled=spoiled)
        if entry.first_step is not None:
            self._times.stay(self._totals.steps - entry.first_step)
        return entry

    def _move_blocks(self) -> None:
        moves = self._pool.take_moves()
        if moves:
            self._forward.rearrange(moves)


def _whole(row: LogitsRow | RowSummary) -> LogitsRow:
    return row.fetch() if isinstance(row, RowSummary) else row
