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
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from inference.types import InferenceEngine
from pipeline.adapters.control_feed import ControlFeed
from pipeline.adapters.kafka import Marks, Offsets, Publisher
from pipeline.adapters.membership import share
from pipeline.config import Settings
from pipeline.errors import Retryable
from pipeline.vault import FileKeyring, Vault

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
    from detectors.catalogue import screen
    from pipeline.runner.admit import AdmitPartition, Rim

    bootstrap = settings.kafka.bootstrap
    async with _control(settings) as feed, _opened(bootstrap, "sluice-admit", "requests") as rim_parts:
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        rim = Rim(bootstrap, feed, vault, screen, *rim_parts, settings.admit.snapshot_every)
        await share(
            bootstrap, "sluice-admit-workers", "requests", lambda p, s: AdmitPartition(rim, p).run(s), stop, assign
        )


async def generate(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.events.records import Work
    from pipeline.runner.generate import GeneratePartition, Rim
    from pipeline.runner.sender import Sender
    from pipeline.stages.generate import Guard
    from pipeline.stages.guard import Redaction, Unguarded

    def guard(work: Work) -> Guard:
        return Redaction() if work.redact else Unguarded()

    bootstrap = settings.kafka.bootstrap
    # the model loads while the broker may still be starting
    engine = await asyncio.to_thread(_engine, settings)
    async with _control(settings) as feed, _opened(bootstrap, "sluice-generate", "work") as (publisher, offsets, marks):
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        sender = Sender(publisher)
        sender.start()
        worker = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
        rim = Rim(bootstrap, worker, engine, feed, vault, sender, offsets, marks, guard)
        await share(
            bootstrap, "sluice-generate-workers", "work", lambda p, s: GeneratePartition(rim, p).run(s), stop, assign
        )
        await sender.close()
        await engine.close()


async def seal(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.adapters.clickhouse import ClickHouse
    from pipeline.adapters.key_files import load_log_keys
    from pipeline.runner.seal import Rim, SealPartition

    bootstrap, ours, store = settings.kafka.bootstrap, settings.seal, settings.clickhouse
    keys = load_log_keys(settings.keys.log_key)
    clickhouse = ClickHouse(store.url, store.user, store.password.get_secret_value(), store.database)
    await patiently(lambda: asyncio.to_thread(clickhouse.connect))
    offsets = Offsets(bootstrap)
    try:
        async with _control(settings) as feed:
            rim = Rim(bootstrap, feed.control.generation, keys, clickhouse, offsets, ours.batch, ours.interval_ms)
            await share(
                bootstrap, "sluice-seal-workers", "decisions", lambda p, s: SealPartition(rim, p).run(s), stop, assign
            )
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
    from pipeline.adapters.topic_admin import require_partitions

    feed = ControlFeed(settings.kafka.bootstrap)
    stop = asyncio.Event()

    async def ready() -> None:
        await feed.start()
        if feed.control.deployment is None:
            raise Retryable("control holds no deployment document; run: sluice topics apply")

    following = None
    try:
        await patiently(ready)
        await require_partitions(settings.kafka.bootstrap, feed.control.require_deployment().partitions)
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
        await marks.start()
        await publisher.start()
        yield publisher, offsets, marks
    finally:
        await publisher.close()
        await offsets.close()
        await marks.close()


def _engine(settings: Settings) -> InferenceEngine:
    from pathlib import Path

    ours = settings.generate
    if ours.model == "echo":
        from inference.echo import EchoEngine

        return EchoEngine(delay=ours.echo_delay_ms / 1000)
    from inference.engine import TorchEngine, shipped_model

    folder = shipped_model() if ours.model == "glossary" else Path(ours.model)
    return TorchEngine(folder, max_batch=ours.batch, threads=ours.threads)
