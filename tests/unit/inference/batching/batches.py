"""Batches on a model without weights, run step by step."""

from __future__ import annotations

from inference.batching.batch import Batch
from inference.batching.options import BatchOptions
from inference.batching.quarantine import Quarantine
from inference.batching.sequence import Sequence
from inference.types import Chunk, GenerationRequest
from tests.unit.inference.doubles import HashForward


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


PATIENT = 1_000_000
"""Strikes of a quarantine that never comes."""


def make_batch(
    forward: HashForward, *, clock: Clock | None = None, strikes: int = PATIENT, reuse: bool = True
) -> Batch:
    quarantine = Quarantine(strikes=strikes)
    options = BatchOptions(max_waiting=1000, keep_prefixes=reuse)
    return Batch(forward, options, clock=clock or Clock(), quarantine=quarantine)


def finish(batch: Batch, answers: dict[str, list[Chunk]]) -> None:
    while batch.stats().running or batch.stats().waiting:
        for chunk in batch.step():
            answers.setdefault(chunk.request_id, []).append(chunk)


def run_batch(
    arrivals: list[tuple[int, GenerationRequest]], forward: HashForward, *, reuse: bool = True
) -> dict[str, list[Chunk]]:
    """Each request's chunks where requests join before the step given."""
    batch = make_batch(forward, reuse=reuse)
    answers: dict[str, list[Chunk]] = {asked.request_id: [] for _, asked in arrivals}
    pending, step = list(arrivals), 0
    while pending or batch.stats().running or batch.stats().waiting:
        for _, asked in [one for one in pending if one[0] <= step]:
            assert batch.join(Sequence(asked, forward.encode(asked.turns))) is None
        pending = [one for one in pending if one[0] > step]
        for chunk in batch.step():
            answers[chunk.request_id].append(chunk)
        step += 1
    assert forward.faults == []
    assert batch.stats().blocks_held == 0
    assert sum(block != [None] * 4 for block in forward.cache) == batch._pool.named
    assert forward.largest <= forward.budget
    return answers
