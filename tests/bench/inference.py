"""The inference worker on two CPU cores, on a random model of 56 million parameters and on the one that ships.

Rows that need a GPU are not here: they were never measured.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from inference.bench import load, marking, probe, reference, storage, throughput
from inference.engine import shipped_model
from tests.bench.rows import Row

CONCURRENT, PROMPT, TOKENS, THREADS = 32, 64, 64, 2
PAIRS, WORDS = 10, 200


def measure() -> list[Row]:
    """Batches against one by one and against transformers, the watermark's share of a step, reuse, cold starts."""
    with load.random_model() as folder:
        return [*_batches(folder), *_marks(folder), *_reuse(folder), *_storage(folder)]


def _batches(folder: Path) -> list[Row]:
    requests = load.questions(CONCURRENT, TOKENS, prompt=PROMPT)
    speeds = asyncio.run(throughput.modes(folder, requests, THREADS, slots=CONCURRENT))
    rows = f"{CONCURRENT} requests, prompts of 16 to {PROMPT} words, {TOKENS // 8} to {TOKENS} tokens, 56 M random"
    together, alone = speeds["continuous"].tokens_per_second, speeds["one by one"].tokens_per_second
    found = [
        Row("inference", "continuous", rows, together, "tokens/s"),
        Row("inference", "continuous against one by one", rows, together / alone, "x", 4),
    ]
    limits = [request.max_tokens for request in requests]
    theirs = [reference.tokens_per_second(folder, load.encoded(folder, requests), limits, THREADS) for _ in range(2)]
    best = max((speed for speed in theirs if speed is not None), default=None)
    if best is None:
        print("transformers is not installed: no comparison with its continuous batching", file=sys.stderr)
        return found
    return [*found, Row("inference", "continuous against transformers'", rows, together / best, "x", 1.1)]


def _marks(folder: Path) -> list[Row]:
    rows = []
    for model, tokens in ((folder, 16), (shipped_model(), 48)):
        plain, marked = marking.run_step_seconds(model, CONCURRENT, tokens, THREADS)
        what = f"step of {CONCURRENT} sampled answers, {model.name}, {plain * 1000:.1f} ms without the mark"
        rows.append(Row("inference", "watermark on against off", what, marked / plain, "x", 1.1, "<="))
    return rows


def _reuse(folder: Path) -> list[Row]:
    leak = probe.run_probe(folder, PAIRS, WORDS, THREADS)
    what = f"{PAIRS} prompts of {WORDS} words, 56 M random, time to the first token"
    return [Row("inference", "own prefix again against new", what, leak.reuse, "x", 5)]


def _storage(folder: Path) -> list[Row]:
    what = "56 M random, AES-256-GCM on disk, Ed25519 and ML-DSA-65, best of 3"
    return [Row("inference", "decrypt, verify and load", what, storage.seconds_per_gib(folder), "s/GiB", 3, "<=")]
