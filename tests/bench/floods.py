"""A request that comes behind a flood: the time to its decision, against the same without one."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision
from pipeline.kafka.reader import PartitionReader
from tests.bench import site as sites
from tests.bench.load import Headers, prompts, requests
from tests.bench.rows import Measurement
from tests.bench.site import BenchSite

FLOOD = 60_000
_ALONE = 20
_TRIES = 3
_CHARS = 300


def measure() -> list[Measurement]:
    """Delay of an honest request behind records without a key, and what they are answered with."""
    with sites.opened() as site:
        child = site.stage("admit", "--assign", "0")
        alone, behind, decisions = asyncio.run(_delays(site))
        site.end(child)
    load = f"{FLOOD:,} records without headers, then one request of {_CHARS} characters, 1 partition"
    return [
        Measurement("floods", "from write to decision, nothing before it", "one request at a time", alone, "ms"),
        Measurement("floods", "from write to decision, behind a flood", load, behind, "ms"),
        Measurement("floods", "decisions for the flood", load, decisions, "records"),
        Measurement("floods", "delay behind a flood against none", load, behind / alone, "x"),
    ]


async def _delays(site: BenchSite) -> tuple[float, float, float]:
    assert site.vault is not None
    asked = requests(site.vault, site.accounts, prompts(_ALONE + _TRIES + 1, _CHARS), "floods")
    decided = _decided(site)
    await _delay(site, asked, decided)
    alone = [(await _delay(site, asked, decided))[0] for _ in range(_ALONE)]
    behind = []
    for _ in range(_TRIES):
        await sites.write(site, "requests", ((b"garbage", []) for _ in range(FLOOD)))
        behind.append(await _delay(site, asked, decided))
    await decided.aclose()
    return (
        statistics.median(alone),
        statistics.median(delay for delay, _ in behind),
        statistics.median(count for _, count in behind),
    )


async def _delay(
    site: BenchSite, asked: Iterator[tuple[bytes, Headers]], decided: AsyncIterator[bool]
) -> tuple[float, int]:
    """Milliseconds until the next request is decided, and decisions that came before it."""
    began, before = time.perf_counter(), 0
    await sites.write(site, "requests", [next(asked)])
    async for honest in decided:
        if honest:
            break
        before += 1
    return (time.perf_counter() - began) * 1000, before


async def _decided(site: BenchSite) -> AsyncGenerator[bool]:
    """Tell of each decision, as it is written, whether it is about a request of ours."""
    reader = PartitionReader(KafkaEndpoint(site.bootstrap), "decisions", 0)
    await reader.start(0)
    try:
        while True:
            for item in await reader.poll(5000):
                record = decode_log(item.value)
                if isinstance(record, Decision):
                    yield bool(record.tenant)
    finally:
        await reader.close()
