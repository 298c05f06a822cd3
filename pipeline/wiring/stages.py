"""One function per process of the pipeline; each serves until ``stop`` is set.

What only one of them needs, it imports itself: six processes start together.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

from pipeline import policy
from pipeline.adapters.kafka import Offsets
from pipeline.adapters.kafka_write import Publisher
from pipeline.adapters.key_files import load_log_keys
from pipeline.adapters.membership import Group, share
from pipeline.config import Generate, Settings
from pipeline.errors import ConfigError
from pipeline.events.control import Control
from pipeline.events.messages import Work
from pipeline.events.wire import Message
from pipeline.topics import pool_topic
from pipeline.vault import FileKeyring, Vault, open_kms
from pipeline.wiring.shared import control_of, opened_of, patiently

Assign = tuple[int, ...]


async def gateway(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.gateway.app import run
    from pipeline.adapters.gateway.settings import GatewaySettings

    ours = settings.gateway
    async with control_of(settings):
        pass
    await run(
        GatewaySettings(
            bootstrap=settings.kafka.bootstrap,
            keyring=settings.keys.keyring,
            host=ours.host,
            port=ours.port,
            lane=ours.lane,
            advertised_bootstrap=ours.advertised_bootstrap,
        ),
        stop,
    )


async def admit(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.screening import Screener
    from pipeline.runner.admit import AdmitPartition, Rim

    bootstrap, opened = settings.kafka.bootstrap, opened_of(settings.kafka.bootstrap, "sluice-admit", "requests")
    async with Screener() as screener, control_of(settings) as feed, opened as rim_parts:
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        rim = Rim(bootstrap, feed, vault, screener.screen, *rim_parts, settings.admit.snapshot_every)
        group = Group(bootstrap, "sluice-admit-workers", "requests", settings.kafka.instance)
        await share(group, lambda p, s: AdmitPartition(rim, p).run(s), stop, assign)


async def generate(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters import engines
    from pipeline.adapters.canaries import Canaries
    from pipeline.adapters.model_acts import ModelActs
    from pipeline.adapters.protected import read_protected
    from pipeline.adapters.worker_metrics import WorkerMetrics, find_nvml
    from pipeline.runner.generate import GeneratePartition, Rim
    from pipeline.runner.sender import Sender
    from pipeline.stages.guard import Guards, guard_of

    bootstrap, ended = settings.kafka.bootstrap, asyncio.Event()
    trace = engines.make_trace(settings.generate, settings.keys)
    protected = await asyncio.to_thread(read_protected, settings.generate.protected)
    # the model loads while the broker may still be starting
    engine = await asyncio.to_thread(engines.make_engine, settings.generate, settings.models, settings.keys)
    pool = settings.generate.pool
    # who shares the group and the marks of a tenant's own workers are those workers alone
    topic, suffix = (pool_topic(pool).name, f".{pool}") if pool else ("work", "")
    opened = opened_of(bootstrap, f"sluice-generate{suffix}", topic)
    async with control_of(settings) as feed, opened as (publisher, offsets, marks):
        _require_tier(settings.generate, feed.control)
        vault = Vault(open_kms(settings.keys.keyring), feed.control)
        canaries = Canaries(feed.control, vault)

        def guard(work: Work, messages: Sequence[Message]) -> Guards:
            return guard_of(work, messages, protected, vault.canary(work.tenant), canaries.others(work.tenant))

        sender, reports = Sender(publisher), Sender(Publisher(bootstrap))
        sender.start()
        reports.start()
        worker = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        metrics = WorkerMetrics(engine, find_nvml())
        rim = Rim(bootstrap, worker, engine, feed, vault, sender, reports, offsets, marks, guard, trace, pool)
        rim.adapted, rim.observe = engines.adapting(engine), metrics.observe
        group = Group(bootstrap, f"sluice-generate-workers{suffix}", topic, settings.kafka.instance)
        acts = ModelActs(settings.models.home, publisher, feed.control.require_deployment().partitions)
        beside = [asyncio.create_task(acts.follow(ended)), asyncio.create_task(engines.follow(engine, ended))]
        async with metrics.served(settings.generate.metrics_host, settings.generate.metrics_port):
            await share(group, lambda p, s: GeneratePartition(rim, p).run(s), stop, assign)
        ended.set()
        await asyncio.gather(*beside)
        await reports.close()
        await sender.close()
        await engine.close()


def _require_tier(ours: Generate, control: Control) -> None:
    """Raises ConfigError where no plan asks for this worker, or asks for more than it gives."""
    tier = policy.pools(control).get(ours.pool, "")
    if ours.pool and not tier:
        raise ConfigError(
            f"generate.pool {ours.pool}: no plan asks for workers of this tenant's own; set isolation in its plan, "
            "or leave generate.pool empty"
        )
    if tier == "device" and ours.device == "cpu":
        raise ConfigError(
            f"generate.pool {ours.pool}: its plan asks for a device of its own, came generate.device cpu; set cuda:N"
        )


async def seal(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.clickhouse import ClickHouse
    from pipeline.runner.seal import Rim, SealPartition

    bootstrap, ours, store = settings.kafka.bootstrap, settings.seal, settings.clickhouse
    keys = load_log_keys(settings.keys.log_key)
    clickhouse = ClickHouse(store.url, store.user, store.password.get_secret_value(), store.database)
    await patiently(lambda: asyncio.to_thread(clickhouse.connect))
    differences = await asyncio.to_thread(clickhouse.check_tables)
    if differences:
        raise ConfigError(f"seal: {'; '.join(differences[:3])}")
    offsets = Offsets(bootstrap)
    try:
        async with control_of(settings) as feed:
            rim = Rim(bootstrap, feed.control.generation, keys, clickhouse, offsets, ours.batch, ours.interval_ms)
            group = Group(bootstrap, "sluice-seal-workers", "decisions", settings.kafka.instance)
            await share(group, lambda p, s: SealPartition(rim, p).run(s), stop, assign)
    finally:
        await offsets.close()
        clickhouse.close()


async def watch(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.faust_watch import run

    async with control_of(settings):
        await run(settings.kafka.bootstrap, stop)


async def notify(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.runner.notify import NotifySettings, run

    async with control_of(settings) as feed:
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        ours = NotifySettings(allow_private=settings.notify.allow_private, timeout_s=settings.notify.timeout_s)
        await run(settings.kafka.bootstrap, feed, vault, ours, stop)


Stage = Callable[[Settings, asyncio.Event, Assign], Awaitable[None]]
STAGES: dict[str, Stage] = {
    "gateway": gateway,
    "admit": admit,
    "generate": generate,
    "seal": seal,
    "watch": watch,
    "notify": notify,
}
