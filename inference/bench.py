"""Tokens per second of the shipped model, together and one by one.

``python -m inference.bench --json`` prints one object; the ratio is what batching brings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from pathlib import Path

from inference.engine import TorchEngine, shipped_model
from inference.types import GenerationRequest, InferenceEngine, SamplingParams, Turn

WORDS = [
    "dog",
    "water",
    "computer",
    "house",
    "music",
    "river",
    "city",
    "doctor",
    "letter",
    "winter",
    "bridge",
    "garden",
]


def questions(count: int, tokens: int) -> list[GenerationRequest]:
    """Requests of mixed prompts; a high temperature keeps most answers from ending early."""
    return [
        GenerationRequest(
            request_id=f"bench-{index}",
            tenant=f"tenant-{index % 4}",
            turns=(Turn("user", f"What is a {WORDS[index % len(WORDS)]}?"),),
            max_tokens=tokens,
            sampling=SamplingParams(temperature=3.0),
        )
        for index in range(count)
    ]


async def run_one(engine: InferenceEngine, request: GenerationRequest) -> tuple[int, float]:
    """Output tokens, and seconds to the first chunk."""
    start, first, total = time.perf_counter(), 0.0, 0
    async for chunk in engine.submit(request):
        first = first or time.perf_counter() - start
        total = chunk.output_tokens
    return total, first


async def measure(folder: Path, count: int, tokens: int, threads: int) -> dict[str, object]:
    """Run the same requests one by one, then all at once; best of two rounds each."""
    engine = TorchEngine(folder, max_batch=count, threads=threads)
    requests = questions(count, tokens)
    await asyncio.gather(*(run_one(engine, request) for request in requests))
    alone, together, first = 0.0, 0.0, 0.0
    for _ in range(2):
        start = time.perf_counter()
        done = [await run_one(engine, request) for request in requests]
        alone = max(alone, sum(total for total, _ in done) / (time.perf_counter() - start))
        start = time.perf_counter()
        done = await asyncio.gather(*(run_one(engine, request) for request in requests))
        speed = sum(total for total, _ in done) / (time.perf_counter() - start)
        if speed > together:
            together, first = speed, sorted(seconds for _, seconds in done)[count // 2]
    await engine.close()
    return {
        "model": engine.models[0],
        "machine": platform.processor() or platform.machine(),
        "threads": threads,
        "concurrent": count,
        "output_tokens": sum(total for total, _ in done),
        "tokens_per_second_one_by_one": round(alone, 1),
        "tokens_per_second_together": round(together, 1),
        "ratio": round(together / alone, 2),
        "median_first_chunk_ms_together": round(first * 1000, 1),
        "row_counts": engine.row_counts,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure batched generation on this machine.")
    parser.add_argument("--model", type=Path, default=shipped_model())
    parser.add_argument("--concurrent", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    asked = parser.parse_args()
    found = asyncio.run(measure(asked.model, asked.concurrent, asked.tokens, asked.threads))
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
