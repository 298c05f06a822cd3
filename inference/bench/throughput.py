"""Tokens per second: one by one, in batches that wait for their slowest, and continuously."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from inference.bench.workload import questions
from inference.engines.torch import TorchEngine, TorchOptions
from inference.types import GenerationRequest, InferenceEngine

STATIC = 8
"""Requests of one static batch."""
SAMPLE = 8
"""Requests asked one by one, evenly spread over all: they are independent, so a sample tells their rate."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Output tokens per second of wall time and of processor time.

    Callers wait in wall time; on a machine that others use too, processor time says more of the program.
    """

    tokens_per_second: float
    tokens_per_cpu_second: float


async def run_one(engine: InferenceEngine, request: GenerationRequest) -> int:
    """Output tokens."""
    total = 0
    async for chunk in engine.submit(request):
        total = chunk.output_tokens
    return total


async def speed(engine: InferenceEngine, requests: list[GenerationRequest], together: int) -> Speed:
    """All requests in groups of ``together``; a group begins when the one before has ended."""
    start, spent = time.perf_counter(), time.process_time()
    tokens = 0
    for index in range(0, len(requests), together):
        group = requests[index : index + together]
        tokens += sum(await asyncio.gather(*(run_one(engine, request) for request in group)))
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    return Speed(tokens / seconds, tokens / spent)


async def modes(
    folder: Path,
    requests: list[GenerationRequest],
    threads: int,
    *,
    slots: int,
    rounds: int = 2,
    device: str = "cpu",
    static: bool = True,
) -> dict[str, Speed]:
    """The best of ``rounds`` of each mode, the modes taking turns so that a busy machine slows all alike.

    No prefixes are kept: a second round would find those of the first. ``static`` False leaves fixed batches out.
    """
    engine = TorchEngine(folder, TorchOptions(max_batch=slots, threads=threads, device=device, keep_prefixes=False))
    sample = requests[:: max(1, len(requests) // SAMPLE)]
    groups = {"one by one": (sample, 1), "continuous": (requests, len(requests))}
    if static:
        groups |= {f"static {size}": (requests, size) for size in (STATIC, slots)}
    await speed(engine, requests[:slots], slots)
    best: dict[str, Speed] = {}
    for _ in range(rounds):
        for mode, group in groups.items():
            measured = await speed(engine, *group)
            if mode not in best or measured.tokens_per_second > best[mode].tokens_per_second:
                best[mode] = measured
    await engine.close()
    return best


def together_and_alone(folder: Path, count: int, tokens: int, threads: int) -> tuple[float, float]:
    """Tokens per second of ``count`` short questions at once, and one by one."""
    speeds = asyncio.run(modes(folder, questions(count, tokens), threads, slots=count, static=False))
    return speeds["continuous"].tokens_per_second, speeds["one by one"].tokens_per_second
