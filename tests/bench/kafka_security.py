"""CPU per request with SASL and TLS between stages and brokers, and without.

Two deployments of one broker each stand side by side, a gateway, an admit and a worker of the echo engine on each; they
take turns under the same load. With security on, every stage logs in as its own user (SCRAM-SHA-512) over TLS, and has
the rights of the table alone.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import urllib.request
from pathlib import Path

import aiohttp

from pipeline import wiring
from pipeline.control import acl
from pipeline.embedded.broker_config import BrokerAccess
from pipeline.embedded.supervisor import LOOPBACK, Child, await_answer
from pipeline.kafka.users import MECHANISM
from pipeline.topics import acl_rules
from tests.bench import site as sites
from tests.bench.answer import TOKENS, BenchCaller, paced
from tests.bench.rows import Measurement
from tests.bench.site import BenchSite, cpu_seconds, family
from tests.certificates import broker_pem

PAIRS = 7
RATE, SECONDS, WARM_S = 30.0, 4.0, 10.0
"""An even pace below saturation: both sides then do the same work in the same batches."""
_STAGES = ("gateway", "admit", "generate")
_PASSWORD = "of a stage"
Spent = dict[str, float]
"""Of each process: CPU milliseconds per request."""


def measure() -> list[Measurement]:
    """Milliseconds of CPU by process, and the ratio of their sums, each the median of interleaved pairs."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        users = tuple((stage, _PASSWORD) for stage in _STAGES)
        access = BrokerAccess("of the brokers", "of the operator", broker_pem(Path(folder)), users)
        (Path(folder) / "password").write_text(_PASSWORD)
        with sites.opened() as off, sites.opened(access) as on:
            acl.grant(on.broker.endpoint, acl_rules())
            pairs = asyncio.run(_pairs(off, on, Path(folder) / "password"))
    return _rows(pairs)


async def _pairs(off: BenchSite, on: BenchSite, password: Path) -> list[tuple[Spent, Spent]]:
    logins = {
        stage: {
            "SLUICE_KAFKA__SASL_MECHANISM": MECHANISM,
            "SLUICE_KAFKA__USER": stage,
            "SLUICE_KAFKA__PASSWORD_FILE": str(password),
        }
        for stage in _STAGES
    }
    found = []
    async with _Served(off, {}) as plain, _Served(on, logins) as secure:
        for side in (plain, secure):
            await paced(side.caller.ask, RATE, WARM_S)
        for number in range(PAIRS):
            # who comes first takes turns too
            if number % 2:
                second = await secure.spent()
                found.append((await plain.spent(), second))
            else:
                first = await plain.spent()
                found.append((first, await secure.spent()))
    return found


class _Served:
    """The stages of one site, and a caller; for the time of a block."""

    def __init__(self, site: BenchSite, logins: dict[str, dict[str, str]]) -> None:
        self._site, self._logins = site, logins
        self._stages: dict[str, Child] = {}

    async def __aenter__(self) -> _Served:
        site = self._site
        url = f"http://{LOOPBACK}:{site.settings.gateway.port}"
        for stage in _STAGES:
            self._stages[stage] = site.stage(stage, env=self._logins.get(stage))
        await asyncio.to_thread(_await_ready, url, list(self._stages.values()))
        async with wiring.registry(site.settings) as hand:
            key = await hand.add_key(site.accounts[0].tenant, f"{site.accounts[0].tenant}-app")
        self._http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})
        self.caller = BenchCaller(self._http, url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        for child in self._stages.values():
            self._site.end(child)

    async def spent(self) -> Spent:
        """CPU of each process per request, under the load once."""
        before = self._cpu()
        await paced(self.caller.ask, RATE, SECONDS)
        return {name: (now - before[name]) / (RATE * SECONDS) * 1000 for name, now in self._cpu().items()}

    def _cpu(self) -> Spent:
        found = {name: sum(map(cpu_seconds, family(child.pid))) for name, child in self._stages.items()}
        return {**found, "broker": cpu_seconds(self._site.broker.pid)}


def _await_ready(url: str, stages: list[Child]) -> None:
    def probe() -> None:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return

    await_answer(f"the gateway at {url}", stages, probe, 120)


def _rows(pairs: list[tuple[Spent, Spent]]) -> list[Measurement]:
    one = f"{RATE * SECONDS:.0f} requests at {RATE:.0f}/s, {TOKENS}-token answers"
    load = f"median of {PAIRS} interleaved pairs of {one}, 1 broker, 1 tenant"
    ratios = [sum(on.values()) / sum(off.values()) for off, on in pairs]
    found = {"": statistics.median(ratios), ": least of the pairs": min(ratios), ": most of the pairs": max(ratios)}
    rows = [
        Measurement("kafka_security", f"CPU of a request, SASL and TLS against neither{of}", load, value, "x")
        for of, value in found.items()
    ]
    for side, word in enumerate(("without", "with SASL and TLS")):
        spent = [pair[side] for pair in pairs]
        by_name = {name: [times[name] for times in spent] for name in spent[0]}
        for name, times in {**by_name, "all": [sum(times.values()) for times in spent]}.items():
            value = statistics.median(times)
            rows.append(Measurement("kafka_security", f"CPU of {name}, {word}", load, value, "ms/request"))
    return rows
