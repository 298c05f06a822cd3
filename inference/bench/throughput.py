"""Tokens per second: one by one, in batches that wait for their slowest, and continuously."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from inference.bench.load import questions
from inference.engine import TorchEngine
from inference.types import GenerationRequest, InferenceEngine

STATIC = 8
"""Requests of one static batch."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Output tokens per second of wall time, and the median seconds to a request's first chunk."""

    tokens_per_second: float
    first_chunk_s: float


async def run_one(engine: InferenceEngine, request: GenerationRequest) -> tuple[int, float]:
    """Output tokens, and seconds to the first chunk."""
    start, first, total = time.perf_counter(), 0.0, 0
    async for chunk in engine.submit(request):
        first = first or time.perf_counter() - start
        total = chunk.output_tokens
    return total, first


async def speed(engine: InferenceEngine, requests: list[GenerationRequest], together: int) -> Speed:
    """All requests in groups of ``together``; a group begins when the one before has ended."""
    start, done = time.perf_counter(), []
    for index in range(0, len(requests), together):
        group = requests[index : index + together]
        done += await asyncio.gather(*(run_one(engine, request) for request in group))
    seconds = time.perf_counter() - start
    return Speed(sum(total for total, _ in done) / seconds, sorted(first for _, first in done)[len(done) // 2])


async def modes(
    folder: Path, requests: list[GenerationRequest], threads: int, *, slots: int, rounds: int = 2, device: str = "cpu"
) -> dict[str, Speed]:
    """The best of ``rounds`` of each mode, the modes taking turns so that a busy machine slows all alike.

    No prefixes are kept: a second round would find those of the first.
    """
    engine = TorchEngine(folder, max_batch=slots, threads=threads, device=device, reuse=False)
    groups = {"one by one": 1, f"static {STATIC}": STATIC, f"static {slots}": slots, "continuous": len(requests)}
    await speed(engine, requests[:slots], slots)
    best: dict[str, Speed] = {}
    for _ in range(rounds):
        for mode, together in groups.items():
            found = await speed(engine, requests, together)
            if mode not in best or found.tokens_per_second > best[mode].tokens_per_second:
                best[mode] = found
    await engine.close()
    return best


def together_and_alone(folder: Path, count: int, tokens: int, threads: int) -> tuple[float, float]:
    """Tokens per second of ``count`` short questions at once, and one by one."""
    found = asyncio.run(modes(folder, questions(count, tokens), threads, slots=count))
    return found["continuous"].tokens_per_second, found["one by one"].tokens_per_second
