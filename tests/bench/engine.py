"""The engine on two CPU cores: 32 requests together against one by one (``inference.bench.throughput``)."""

from __future__ import annotations

from inference.bench.throughput import together_and_alone
from inference.engines.torch import shipped_model
from tests.bench.rows import Measurement

CONCURRENT = 32
TOKENS = 48
THREADS = 2


def measure() -> list[Measurement]:
    """Output tokens per second of wall time, and their ratio."""
    folder = shipped_model()
    together, alone = together_and_alone(folder, CONCURRENT, TOKENS, THREADS)
    load = f"{CONCURRENT} requests of {TOKENS} tokens, {folder.name}, {THREADS} threads, best of 2 rounds"
    return [
        Measurement("engine", "together against one by one", load, together / alone, "x", 3),
        Measurement("engine", "together", load, together, "tokens/s"),
        Measurement("engine", "one by one", load, alone, "tokens/s"),
    ]
