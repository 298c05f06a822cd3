"""The inference worker on the CPU, on a random model of 56 million parameters and on the one that ships.

Sized to end within seven minutes. One thread of arithmetic, as ``generate.threads`` has it: two wait for each other at
every product, so on a machine with other work they measure that. Ratios are told by wall time, and by processor time
too. Rows that need a GPU are not here: they were never measured.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from inference.bench import cold_start, prefix_reuse, throughput, transformers_batching, watermark_cost, workload
from inference.bench.throughput import Speed
from inference.engines.torch import shipped_model
from tests.bench.rows import Measurement

CONCURRENT = 32
PROMPT = 64
TOKENS = 48
THREADS = 1
PAIRS, WORDS = 5, 200


def measure() -> Iterator[Measurement]:
    """Batches against one by one and against transformers, the watermark's share of a step, reuse, cold starts."""
    with workload.random_model() as folder:
        for part in (_storage, _batches, _marks, _reuse):
            yield from part(folder)


def _batches(folder: Path) -> Iterator[Measurement]:
    requests = workload.questions(CONCURRENT, TOKENS, prompt=PROMPT)
    speeds = asyncio.run(throughput.modes(folder, requests, THREADS, slots=CONCURRENT, static=False))
    rows = f"{CONCURRENT} requests, prompts of 16 to {PROMPT} words, {TOKENS // 8} to {TOKENS} tokens, 56 M random"
    together = speeds["continuous"]
    yield Measurement("inference", "continuous", rows, together.tokens_per_second, "tokens/s")
    yield from _ratios("continuous against one by one", rows, together, speeds["one by one"], 4)
    limits = [request.max_tokens for request in requests]
    peer = transformers_batching.speed(folder, workload.encoded(folder, requests), limits, THREADS)
    if peer is None:
        print("transformers is not installed: no comparison with its continuous batching", file=sys.stderr)
        return
    yield from _ratios("continuous against transformers'", rows, together, peer, 1.1)


def _ratios(what: str, rows: str, measured: Speed, baseline: Speed, goal: float) -> Iterator[Measurement]:
    yield Measurement("inference", what, rows, measured.tokens_per_second / baseline.tokens_per_second, "x", goal)
    yield Measurement(
        "inference",
        f"{what}, processor time",
        rows,
        measured.tokens_per_cpu_second / baseline.tokens_per_cpu_second,
        "x",
    )


def _marks(folder: Path) -> Iterator[Measurement]:
    for model, tokens in ((folder, 16), (shipped_model(), 48)):
        plain, marked = watermark_cost.run_step_seconds(model, CONCURRENT, tokens, THREADS)
        what = f"step of {CONCURRENT} sampled answers, {model.name}, {plain * 1000:.1f} ms without the mark"
        yield Measurement("inference", "watermark on against off", what, marked / plain, "x", 1.1, "<=")


def _reuse(folder: Path) -> Iterator[Measurement]:
    leak = prefix_reuse.run_probe(folder, PAIRS, WORDS, THREADS)
    what = f"{PAIRS} prompts of {WORDS} words, 56 M random, time to the first token"
    yield Measurement("inference", "own prefix again against new", what, leak.reuse, "x", 5)
    yield Measurement("inference", "own prefix again against new, processor time", what, leak.reuse_processor, "x")


def _storage(folder: Path) -> Iterator[Measurement]:
    cost = cold_start.seconds_per_gib(folder)
    what = "56 M random, AES-256-GCM on disk, Ed25519 and ML-DSA-65, best of 3"
    yield Measurement("inference", "decrypt, verify and load", what, cost.wall, "s/GiB", 3, "<=")
    yield Measurement("inference", "decrypt, verify and load, processor time", what, cost.processor, "s/GiB")
