"""The engine on two CPU cores: 32 requests together against one by one (``inference.bench``)."""

from __future__ import annotations

import asyncio

from inference.bench import measure as run
from inference.engine import shipped_model
from tests.bench.rows import Row

CONCURRENT, TOKENS, THREADS = 32, 48, 2


def measure() -> list[Row]:
    """Output tokens per second of wall time, and their ratio."""
    found = asyncio.run(run(shipped_model(), CONCURRENT, TOKENS, THREADS))
    load = f"{CONCURRENT} requests of {TOKENS} tokens, {found['model']}, {THREADS} threads, best of 2 rounds"
    together, alone = float(str(found["tokens_per_second_together"])), float(str(found["tokens_per_second_one_by_one"]))
    return [
        Row("engine", "together against one by one", load, together / alone, "x", 3),
        Row("engine", "together", load, together, "tokens/s"),
        Row("engine", "one by one", load, alone, "tokens/s"),
    ]
