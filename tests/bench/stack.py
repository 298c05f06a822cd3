"""The whole embedded deployment with the echo engine: how long an answer takes, by hop, and what memory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline import config, wiring
from pipeline.embedded.stack import LocalStack, Ports
from pipeline.embedded.supervisor import free_port
from tests.bench import answer
from tests.bench.rows import Measurement
from tests.bench.site import documents, family, memory_mb

STAGES = ("gateway", "admit", "seal", "watch", "notify")
STAGE_MB, BROKER_MB = 150, 400


@contextlib.contextmanager
def opened(model: str) -> Iterator[LocalStack]:
    """A started stack that serves ``model``, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        ports = Ports(free_port(), free_port(), free_port(), free_port())
        stack = LocalStack(Path(folder), config.cache(), ports, {"SLUICE_GENERATE__MODEL": model})
        try:
            stack.start(lambda text: print(text, file=sys.stderr))
            yield stack
        finally:
            stack.stop()


@contextlib.contextmanager
def running() -> Iterator[tuple[LocalStack, str]]:
    """A started stack with the echo engine, and the text of a key on the plan that refuses nothing."""
    with opened("echo") as stack:
        yield stack, asyncio.run(_key(stack))


async def _key(stack: LocalStack) -> str:
    async with wiring.registry(stack.settings) as hand:
        await hand.apply_policies(documents())
        await hand.add_tenant("bench", "bench")
        return await hand.add_key("bench", "bench-app")


def measure() -> list[Measurement]:
    """Latency rows, then memory rows taken right after that load."""
    with running() as (stack, key):
        return asyncio.run(answer.measure(stack, key)) + memory(stack)


def memory(stack: LocalStack) -> list[Measurement]:
    load = "after the load of the answers"
    rows = []
    for stage in STAGES:
        size = sum(map(memory_mb, family(stack.stages[stage].pid)))
        rows.append(Measurement("memory", stage, load, size, "MB PSS", STAGE_MB, "<="))
    rows.append(Measurement("memory", "broker", load, memory_mb(stack.brokers[0].pid), "MB PSS", BROKER_MB, "<="))
    return rows
