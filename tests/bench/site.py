"""A real broker with a deployment on it, stages as processes of their own, and what those processes cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from pipeline import config, wiring
from pipeline.config import Settings
from pipeline.control.registry import Registry
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerAccess, BrokerSettings
from pipeline.embedded.supervisor import Child, Supervisor, free_port, spawn
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import encode
from pipeline.events.control import AnyDocument, parse
from pipeline.kafka.clients import make_admin, make_producer
from pipeline.kafka.offsets import Offsets
from pipeline.keys.vault import Vault
from pipeline.topics import OPERATOR, partition_of
from tests.bench.load import Account, Headers

PARTITIONS = 4
_TICK = os.sysconf("SC_CLK_TCK")
_POLICIES = (
    {"doc": "model", "id": "echo", "context": 4096},
    {
        "doc": "plan",
        "id": "bench",
        "models": ["echo"],
        "tenant": [
            {"id": "requests", "meter": "rate", "amount": 10**9, "period_s": 60},
            {"id": "tokens-month", "meter": "budget", "unit": "tokens", "amount": 2**36 - 1, "period": "month"},
            {"id": "open", "meter": "open", "amount": 10**9},
        ],
        "principal": [{"id": "requests", "meter": "rate", "amount": 10**9, "period_s": 60}],
    },
)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, all threads; of Linux's 10 ms ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def memory_mb(pid: int) -> float:
    """Memory of a process that lies in RAM now, what it shares divided by those who share it (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


@dataclass
class BenchSite:
    """A broker with topics, a plan that refuses nothing, and accounts whose organisations live in partition 0."""

    home: Path
    settings: Settings
    supervisor: Supervisor
    broker: EmbeddedBroker
    accounts: list[Account] = field(default_factory=list)
    vault: Vault | None = None
    generation: str = ""

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def run(self, *argv: str, name: str = "", env: dict[str, str] | None = None) -> Child:
        """A Python program of this project as a child process; its log lies in ``home``."""
        name = name or "-".join(argv[1:3])
        given = {"PYTHONUNBUFFERED": "1", **(env or {})}
        child = spawn([sys.executable, *argv], name=name, log=self.home / f"{name}.log", env=given)
        self.supervisor.add(child)
        return child

    def end(self, child: Child) -> None:
        child.terminate()
        self.supervisor.remove(child)

    def stage(self, stage: str, *flags: str, env: dict[str, str] | None = None) -> Child:
        """``sluice run STAGE`` as a process."""
        config_file = str(self.home / "sluice.toml")
        return self.run("-m", "pipeline", "--config", config_file, "run", stage, *flags, name=stage, env=env)


@contextlib.contextmanager
def opened(access: BrokerAccess | None = None) -> Iterator[BenchSite]:
    """A site of its own, gone afterwards; its settings are the operator's."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        home, supervisor = Path(folder), Supervisor()
        ports = (free_port(), free_port())
        broker = EmbeddedBroker(BrokerSettings(home / "kafka", config.cache(), *ports, access=access), supervisor)
        broker.ensure_fetched(lambda text: print(text, file=sys.stderr))
        broker.start()
        try:
            (home / "sluice.toml").write_text(_sections(home, broker, access))
            site = BenchSite(home, config.load(home / "sluice.toml"), supervisor, broker)
            asyncio.run(_furnish(site))
            yield site
        finally:
            supervisor.stop_all()


def _sections(home: Path, broker: EmbeddedBroker, access: BrokerAccess | None) -> str:
    kafka: dict[str, str | int] = {"bootstrap": broker.bootstrap, "partitions": PARTITIONS}
    if access is not None:
        (home / "operator").write_text(access.operator_password)
        kafka |= {"security_protocol": access.protocol, "ca_file": str(access.certificate or "")}
        kafka |= {"sasl_mechanism": "PLAIN", "user": OPERATOR, "password_file": str(home / "operator")}
    sections: dict[str, dict[str, str | int]] = {
        "kafka": kafka,
        "keys": {"home": str(home / "keys")},
        "gateway": {"port": free_port()},
        "generate": {"model": "echo"},
    }
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
        for name, fields in sections.items()
    )


async def _furnish(site: BenchSite) -> None:
    await wiring.apply_topics(site.settings, print)
    names = [name for n in range(200) if not partition_of((name := f"tenant-{n}").encode(), PARTITIONS)][:16]
    async with wiring.registry(site.settings) as hand:
        await hand.apply_policies(documents())
        site.accounts = [await account(hand, name) for name in names]
        site.vault, site.generation = wiring.vault(site.settings, hand), hand.control.generation


async def account(hand: Registry, tenant: str) -> Account:
    """A new tenant on the plan that refuses nothing."""
    await hand.add_tenant(tenant, "bench")
    return Account.of(tenant, await hand.add_key(tenant, f"{tenant}-app"))


def documents() -> list[AnyDocument]:
    """The model and the plan of the benchmarks."""
    return [parse(encode(document)) for document in _POLICIES]


async def write(site: BenchSite, topic: str, records: Iterable[tuple[bytes, Headers]], partition: int = 0) -> int:
    """Write records in large batches; gives their number."""
    written = 0
    async with producing(site) as producer:
        builder = producer.create_batch()
        for value, headers in records:
            if builder.append(timestamp=None, key=b"o", value=value, headers=headers) is None:
                await (await producer.send_batch(builder, topic, partition=partition))
                builder = producer.create_batch()
                builder.append(timestamp=None, key=b"o", value=value, headers=headers)
            written += 1
        await (await producer.send_batch(builder, topic, partition=partition))
    return written


@contextlib.asynccontextmanager
async def producing(site: BenchSite) -> AsyncIterator[AIOKafkaProducer]:
    producer = make_producer(KafkaEndpoint(site.bootstrap), max_batch_size=512 * 1024)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def make_topic(site: BenchSite, name: str) -> None:
    """A topic of one partition, beside those of the deployment."""
    admin = make_admin(KafkaEndpoint(site.bootstrap))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


async def until_end(site: BenchSite, topic: str, offset: int, seconds: float = 120, partition: int = 0) -> int:
    """Wait until a partition holds ``offset`` records; gives how many it holds then. Raises TimeoutError."""
    offsets, at = Offsets(KafkaEndpoint(site.bootstrap)), TopicPartition(topic, partition)
    try:
        async with asyncio.timeout(seconds):
            while (end := await offsets.end(at)) < offset:  # noqa: ASYNC110 - the broker tells nobody
                await asyncio.sleep(0.02)
            return end
    finally:
        await offsets.close()
