"""ADMIT at saturation: a real process on a real broker, with requests waiting before it starts."""

from __future__ import annotations

import asyncio
import time

from pipeline.embedded.supervisor import Child
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import Link
from pipeline.kafka.reader import PartitionReader
from tests.bench import site as sites
from tests.bench.load import prompts, requests
from tests.bench.rows import Measurement
from tests.bench.site import BenchSite, cpu_seconds, family

COUNT = 40_000
FAUST_COUNT = 12_000
_CHARS = 300
_WARM = 8_000


def measure() -> list[Measurement]:
    """Decisions per second of CPU, and the same against Faust and against a bare loop."""
    with sites.opened() as site:
        asyncio.run(_fill(site))
        made, alone, batch = asyncio.run(_decide(site))
        bare = _baseline(site, "bare", COUNT)
        faust = _baseline(site, "faust", FAUST_COUNT)
    load = f"{COUNT:,} requests of {_CHARS} characters waiting, 16 tenants, 1 partition"
    return [
        Measurement("admit", "decisions per CPU second, the reader of texts included", load, made, "/s/core", 20_000),
        Measurement("admit", "decisions per CPU second of the admit process alone", load, alone, "/s/core"),
        Measurement("admit", "records per batch of decisions", load, batch, "records", 256),
        Measurement(
            "admit", "against a Faust agent (JSON, counter)", f"same bytes; {faust:,.0f}/s/core", made / faust, "x", 5
        ),
        Measurement(
            "admit", "against a bare aiokafka read-write loop", f"same bytes; {bare:,.0f}/s/core", made / bare, "x"
        ),
    ]


async def _fill(site: BenchSite) -> None:
    assert site.vault is not None
    await sites.write(site, "requests", requests(site.vault, site.accounts, prompts(COUNT, _CHARS), "bench"))
    await sites.make_topic(site, "bench-out")


async def _decide(site: BenchSite) -> tuple[float, float, float]:
    child = site.stage("admit", "--assign", "0")
    first = await sites.until_end(site, "decisions", _WARM)
    processes = family(child.pid)
    began = [cpu_seconds(pid) for pid in processes]
    last = await sites.until_end(site, "decisions", COUNT)
    spent = [cpu_seconds(pid) - before for pid, before in zip(processes, began, strict=True)]
    site.end(child)
    return (last - first) / sum(spent), (last - first) / spent[0], await _batch_size(site)


async def _batch_size(site: BenchSite) -> float:
    """Mean size of a batch of ``decisions``, as its own headers tell."""
    reader = PartitionReader(KafkaEndpoint(site.bootstrap), "decisions", 0)
    await reader.start(0)
    entries = [item.entry() for item in await reader.read_to_end()]
    await reader.close()
    links = [link for entry in entries if (link := Link.unpack(entry.link)) is not None]
    return len(links) / sum(link.index == 0 for link in links)


def _baseline(site: BenchSite, kind: str, count: int) -> float:
    child = site.run("-m", "tests.bench.baselines", kind, site.bootstrap, "requests", str(count))
    _await_end(child)
    line = next((line for line in child.log.read_text().splitlines() if line.startswith("RESULT")), "")
    if not line:
        raise RuntimeError(f"{kind} gave no result; last lines:\n{child.log_tail()}")
    records, cpu = line.split()[1:]
    return int(records) / float(cpu)


def _await_end(child: Child, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while child.alive():
        if time.monotonic() > until:
            child.kill()
            raise TimeoutError(f"{child.name} did not end within {seconds:.0f} s")
        time.sleep(0.05)
