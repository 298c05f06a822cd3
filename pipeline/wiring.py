"""Puts stages and adapters together: one function per process. Only this module knows concrete adapters.

Each function serves until ``stop`` is set. They raise ConfigError, Retryable (a dependency was absent for a minute)
or Fatal; ``cli`` turns those into exit codes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from inference.registry.dsse import Trust
from inference.registry.store import ModelRegistry
from inference.registry.wrapping import create_worker
from inference.watermark.keys import create_master
from pipeline import policy
from pipeline.adapters import engines, topic_admin
from pipeline.adapters.auditor import Auditor, read_sources
from pipeline.adapters.clickhouse import ClickHouse
from pipeline.adapters.control_feed import ControlFeed
from pipeline.adapters.grant import write_grant
from pipeline.adapters.kafka import Marks, Offsets
from pipeline.adapters.kafka_write import Publisher
from pipeline.adapters.key_files import create_log_keys, load_log_keys
from pipeline.adapters.membership import Group, share
from pipeline.adapters.model_acts import ModelActs
from pipeline.adapters.registry import Registry
from pipeline.audit.checkpoint import Verifiers
from pipeline.audit.faults import Report
from pipeline.audit.replay import Rules
from pipeline.audit.verify import Verifier
from pipeline.config import Generate, Settings
from pipeline.errors import ConfigError, Retryable
from pipeline.events.control import Control
from pipeline.events.messages import Work
from pipeline.events.wire import Message
from pipeline.ledger import Ledger
from pipeline.stages import admit as stages
from pipeline.topics import pool_topic
from pipeline.vault import FileKeyring, Vault, open_kms

_log = logging.getLogger(__name__)
_PATIENCE_S = 90.0
_PAUSE_S = 0.25
Assign = tuple[int, ...]


async def gateway(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.gateway.app import run
    from pipeline.adapters.gateway.settings import GatewaySettings

    ours = settings.gateway
    async with _control(settings):
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

    bootstrap, opened = settings.kafka.bootstrap, _opened(settings.kafka.bootstrap, "sluice-admit", "requests")
    async with Screener() as screener, _control(settings) as feed, opened as rim_parts:
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        rim = Rim(bootstrap, feed, vault, screener.screen, *rim_parts, settings.admit.snapshot_every)
        group = Group(bootstrap, "sluice-admit-workers", "requests", settings.kafka.instance)
        await share(group, lambda p, s: AdmitPartition(rim, p).run(s), stop, assign)


async def generate(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
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
    opened = _opened(bootstrap, f"sluice-generate{suffix}", topic)
    async with _control(settings) as feed, opened as (publisher, offsets, marks):
        _require_tier(settings.generate, feed.control)
        vault = Vault(open_kms(settings.keys.keyring), feed.control)

        def guard(work: Work, messages: Sequence[Message]) -> Guards:
            return guard_of(work, messages, protected, vault.canary(work.tenant))

        sender, reports = Sender(publisher), Sender(Publisher(bootstrap))
        sender.start()
        reports.start()
        worker = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        metrics = WorkerMetrics(engine, find_nvml())
        rim = Rim(bootstrap, worker, engine, feed, vault, sender, reports, offsets, marks, guard, trace, pool)
        rim.observe = metrics.observe
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
        async with _control(settings) as feed:
            rim = Rim(bootstrap, feed.control.generation, keys, clickhouse, offsets, ours.batch, ours.interval_ms)
            group = Group(bootstrap, "sluice-seal-workers", "decisions", settings.kafka.instance)
            await share(group, lambda p, s: SealPartition(rim, p).run(s), stop, assign)
    finally:
        await offsets.close()
        clickhouse.close()


async def watch(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.faust_watch import run

    async with _control(settings):
        await run(settings.kafka.bootstrap, stop)


async def notify(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.runner.notify import NotifySettings, run

    async with _control(settings) as feed:
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


async def patiently(act: Callable[[], Awaitable[None]], patience_s: float = _PATIENCE_S) -> None:
    """Again and again while a dependency is absent. Raises the last Retryable with how long it was tried."""
    began = time.monotonic()
    while True:
        try:
            await act()
            return
        except Retryable as error:
            tried = time.monotonic() - began
            if tried > patience_s:
                raise Retryable(f"gave up after {tried:.0f} s: {error}") from error
            await asyncio.sleep(_PAUSE_S)


@contextlib.asynccontextmanager
async def _control(settings: Settings) -> AsyncIterator[ControlFeed]:
    """A started feed that is kept up to date; the partition count of the broker must be the pinned one."""
    feed = ControlFeed(settings.kafka.bootstrap)
    stop = asyncio.Event()

    async def ready() -> None:
        await feed.start()
        if feed.control.deployment is None:
            raise Retryable("control holds no deployment document; run: sluice topics apply")

    following = None
    try:
        await topic_admin.reach(settings.kafka.bootstrap, _PATIENCE_S)
        await patiently(ready)
        pinned = feed.control.require_deployment().partitions
        await topic_admin.require_partitions(settings.kafka.bootstrap, pinned, policy.pools(feed.control))
        following = asyncio.create_task(feed.follow(stop))
        yield feed
    finally:
        stop.set()
        if following is not None:
            await following
        await feed.close()


@contextlib.asynccontextmanager
async def _opened(bootstrap: str, group: str, topic: str) -> AsyncIterator[tuple[Publisher, Offsets, Marks]]:
    publisher, offsets, marks = Publisher(bootstrap), Offsets(bootstrap), Marks(bootstrap, group, topic)
    try:
        await patiently(marks.start)
        await patiently(publisher.start)
        yield publisher, offsets, marks
    finally:
        await publisher.close()
        await offsets.close()
        await marks.close()


def models(settings: Settings) -> ModelRegistry:
    """The model registry, in the name of the account that asks."""
    return engines.model_registry(settings.models)


async def forward_model_acts(settings: Settings) -> int:
    """Write what was done to the registry to ``access``; gives the count. Raises Retryable, soon, without a broker."""
    bootstrap = settings.kafka.bootstrap
    await topic_admin.reach(bootstrap, patience_s=0)
    feed, publisher = ControlFeed(bootstrap), Publisher(bootstrap)
    try:
        await feed.start()
        partitions = feed.control.require_deployment().partitions
        return await ModelActs(settings.models.home, publisher, partitions).forward()
    finally:
        await publisher.close()
        await feed.close()


def model_trust(settings: Settings) -> Trust:
    """Whose signatures on models count."""
    return engines.model_trust(settings.models)


@contextlib.asynccontextmanager
async def registry(settings: Settings) -> AsyncIterator[Registry]:
    """The operator's hand on ``control``; a user of the embedded stack needs it running."""
    keyring = FileKeyring(settings.keys.keyring)
    feed = ControlFeed(settings.kafka.bootstrap)
    hand = Registry(settings.kafka.bootstrap, feed, keyring)
    try:
        await check_broker(settings)
        await feed.start()
        yield hand
    finally:
        await hand.close()
        await feed.close()


async def follow_pools(settings: Settings, stop: threading.Event, tell: Callable[[dict[str, str]], None]) -> None:
    """Tell which tenants ask for workers of their own, now and whenever that changes, until ``stop``."""
    async with _control(settings) as feed:
        version = -1
        while not stop.is_set():
            if feed.control.version != version:
                version = feed.control.version
                tell(policy.pools(feed.control))
            await asyncio.sleep(_PAUSE_S)


async def grant(settings: Settings, tenant: str, out: Path) -> None:
    """Write into ``out`` the keys that ``tenant``'s own workers need, and none of any other. Raises ConfigError."""
    async with registry(settings) as hand:
        document = hand.control.tenants.get(tenant)
        if document is None or tenant not in policy.pools(hand.control):
            raise ConfigError(f"no plan asks for workers of tenant {tenant!r} alone; see: sluice deploy tenants --list")
    write_grant(settings.keys, document, out)


def vault(settings: Settings, hand: Registry) -> Vault:
    """The secrets behind the registry's documents."""
    return Vault(open_kms(settings.keys.keyring), hand.control)


async def check_broker(settings: Settings) -> None:
    """Raises Retryable, soon, where no broker answers."""
    await topic_admin.reach(settings.kafka.bootstrap, patience_s=5)


async def check_topics(settings: Settings) -> list[str]:
    await check_broker(settings)
    return await topic_admin.check(settings.kafka.bootstrap)


async def apply_topics(settings: Settings) -> list[str]:
    """Topics, the deployment document, and keys where there are none. Gives the names of the topics made."""
    kafka, keys = settings.kafka, settings.keys
    FileKeyring.create(keys.keyring)
    log_keys = create_log_keys(keys.log_key, "sluice")
    create_master(keys.watermark_key)
    create_worker(keys.worker_key)
    return await topic_admin.apply(kafka.bootstrap, kafka.partitions, kafka.replication, log_keys.verifier_keys)


def check_tables(settings: Settings) -> list[str]:
    with store(settings) as clickhouse:
        return clickhouse.check_tables()


def apply_tables(settings: Settings) -> int:
    with store(settings) as clickhouse:
        return clickhouse.apply_migrations()


@contextlib.contextmanager
def store(settings: Settings, patience_s: float = 30.0) -> Iterator[ClickHouse]:
    """A connected client of the store."""
    ours = settings.clickhouse
    clickhouse = ClickHouse(ours.url, ours.user, ours.password.get_secret_value(), ours.database)
    clickhouse.connect(patience_s)
    try:
        yield clickhouse
    finally:
        clickhouse.close()


async def log_keys(settings: Settings) -> list[str]:
    """Verifier keys as pinned in ``control``; an outside verifier brings keys of its own."""
    feed = ControlFeed(settings.kafka.bootstrap)
    try:
        await check_broker(settings)
        await feed.start()
        return list(feed.control.require_deployment().log_keys)
    finally:
        await feed.close()


def verify(settings: Settings, keys: list[str], say: Callable[[str], None], *, with_source: bool = False) -> Report:
    """Verify the whole store, offline but for ``with_source``."""
    rules = Rules(Ledger, stages.decide, stages.outcome, stages.expired, stages.GRACE_MS)
    with store(settings, patience_s=5) as clickhouse:
        auditor = Auditor(clickhouse, Verifier(Verifiers(keys)), rules)
        sources = asyncio.run(read_sources(settings.kafka.bootstrap, auditor.origins())) if with_source else None
        return auditor.verify(say, sources)
