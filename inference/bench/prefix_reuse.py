"""Prefix reuse: its worth to the tenant itself, and the knowledge that timing gives of another tenant's prompt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.bench.workload import WORDS
from inference.engines.torch import TorchEngine, TorchOptions
from inference.types import GenerationRequest, Turn


@dataclass(frozen=True, slots=True)
class Leak:
    """``auc``: chance that a right guess of another tenant's prompt was answered faster than a wrong one; 0.5 is blind.

    ``reuse``: median time to the first token without the tenant's own prefix, over that with it; ``reuse_processor``
    the same of processor time, which other work on the machine disturbs less.
    """

    auc: float
    reuse: float
    reuse_processor: float


async def probe(folder: Path, pairs: int, words: int, threads: int) -> Leak:
    """``pairs`` prompts of ``words`` words: a victim asks, then a spy asks the same and another one in random order."""
    engine = TorchEngine(folder, TorchOptions(max_batch=4, threads=threads))
    draw = np.random.default_rng(0)
    times: dict[str, list[float]] = {"right": [], "wrong": [], "own": [], "new": []}
    spent: dict[str, list[float]] = {kind: [] for kind in times}

    async def ask(kind: str, tenant: str, text: str) -> None:
        request = GenerationRequest(f"{kind}-{tenant}-{len(times[kind])}", tenant, (Turn("user", text),), 1)
        begun, used = time.perf_counter(), time.process_time()
        async for _ in engine.submit(request):
            pass
        times[kind].append(time.perf_counter() - begun)
        spent[kind].append(time.process_time() - used)

    for number in range(pairs + 1):
        secret, other = (" ".join(draw.choice(WORDS, words)) for _ in range(2))
        await ask("new", "victim", secret)
        guesses = [("right", secret), ("wrong", other)]
        for kind, text in guesses if draw.random() < 0.5 else guesses[::-1]:
            # a spy of its own each time: its own cache must not help it
            await ask(kind, f"spy-{number}-{kind}", text)
        await ask("own", "victim", secret)
    await engine.close()
    # the first round pays for memory that is touched for the first time
    kept = {kind: values[1:] for kind, values in times.items()}
    reuse, processor = (float(np.median(seen["new"][1:]) / np.median(seen["own"][1:])) for seen in (times, spent))
    return Leak(auc(kept["right"], kept["wrong"]), reuse, processor)


def auc(fast: Sequence[float], slow: Sequence[float]) -> float:
    """Chance that one of ``fast`` is smaller than one of ``slow``; ties count half (Mann and Whitney 1947)."""
    left, right = np.asarray(fast)[:, None], np.asarray(slow)[None, :]
    return float(((left < right) + 0.5 * (left == right)).mean())


def run_probe(folder: Path, pairs: int, words: int, threads: int) -> Leak:
    """``probe`` outside a loop."""
    return asyncio.run(probe(folder, pairs, words, threads))
