"""The time that the watermark adds to a step."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from inference.bench.throughput import speed
from inference.bench.workload import questions
from inference.engines.torch import TorchEngine, TorchOptions
from inference.watermark.marking import MarkPolicy, TenantMarker
from inference.watermark.secrets import SECRET_BYTES, of_master


async def step_seconds(folder: Path, count: int, tokens: int, threads: int, rounds: int = 5) -> tuple[float, float]:
    """Processor seconds of one step of ``count`` sampled answers, without the mark and with it.

    Each is the best of ``rounds`` that alternate.
    """
    marker = TenantMarker(of_master(secrets.token_bytes(SECRET_BYTES)).mark, lambda tenant: MarkPolicy(), lambda: 0)
    engines = [
        TorchEngine(folder, TorchOptions(max_batch=count, threads=threads, keep_prefixes=False, marker=made))
        for made in (None, marker)
    ]
    requests = questions(count, tokens)
    best = [float("inf"), float("inf")]
    for round_ in range(rounds + 1):
        for index, engine in enumerate(engines):
            steps, begun = engine.stats().steps, time.process_time()
            await speed(engine, requests, count)
            spent = (time.process_time() - begun) / (engine.stats().steps - steps)
            # the first round pays for memory that is touched for the first time
            best[index] = min(best[index], spent) if round_ else best[index]
    for engine in engines:
        await engine.close()
    return best[0], best[1]


def run_step_seconds(folder: Path, count: int, tokens: int, threads: int) -> tuple[float, float]:
    """``step_seconds`` outside a loop."""
    return asyncio.run(step_seconds(folder, count, tokens, threads))
