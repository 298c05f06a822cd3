"""Opens what every stage needs before it serves: a broker, ``control`` with the pinned partitions, Kafka clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from pipeline.config import Settings
from pipeline.control import topics as topic_admin
from pipeline.control.checked_prefix import checked_prefix
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.events import plans
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.writer import Publisher
from pipeline.process_status import ProcessStatus
from pipeline.retry import retry_until

START_S = 90.0
"""How long a stage waits at its start for a broker or a store before it ends with exit code 3."""


@contextlib.asynccontextmanager
async def followed_control(
    settings: Settings, stop: asyncio.Event, status: ProcessStatus | None = None
) -> AsyncIterator[ControlTable]:
    """Give ``control`` as a table that is kept up to date, once the broker has the partitions that it pins.

    ``status`` is told how far it was read.

    Raises Retryable where that does not come within START_S, Stopped where ``stop`` is set first, ConfigError where the
    settings do not say which deployment is meant, or ``control`` holds another.
    """
    table = _table(settings)
    leaving = asyncio.Event()

    async def read() -> None:
        await table.start()
        require_pinned(table)

    async def check_partitions() -> None:
        pinned = table.control.require_deployment().partitions
        await topic_admin.require_partitions(settings.kafka.endpoint, pinned, plans.pools(table.control))

    following = None
    try:
        await topic_admin.reach(settings.kafka.endpoint, START_S, stop)
        await retry_until(read, START_S, "the deployment document in control", stop)
        await retry_until(check_partitions, START_S, "the topics of the deployment", stop)
        following = asyncio.create_task(table.follow(leaving))
        if status is not None:
            status.add(table.readings)
        yield table
    finally:
        leaving.set()
        if following is not None:
            await following
        await table.close()


def _table(settings: Settings) -> ControlTable:
    pin = require_pin(settings)
    return ControlTable(settings.kafka.endpoint, pin, checked_prefix(pin, settings.keys.keyring))


def require_pin(settings: Settings) -> str:
    """Give the digest by which ``control`` is trusted. Raises ConfigError where no setting says it."""
    if not settings.keys.pin:
        raise ConfigError(
            "keys.deployment is empty and there is no file deployment in keys.home, so nothing says whose control is "
            "to be trusted; copy the pin from: sluice keys show, or set the deployment up with: sluice topics apply"
        )
    return settings.keys.pin


def require_pinned(table: ControlTable) -> None:
    """Raises ConfigError where ``control`` is another deployment's, Retryable where it holds none yet."""
    fold = table.fold
    if not fold.signed and fold.other:
        raise ConfigError(
            f"control holds the deployment {fold.other[:16]}, expected {fold.pin[:16]} as pinned by keys.deployment or "
            "the file deployment in keys.home; connect to the brokers of that deployment, or correct the pin"
        )
    if not fold.signed:
        raise Retryable("control holds no deployment document of the pinned deployment; run: sluice topics apply")


@contextlib.asynccontextmanager
async def control_table(settings: Settings) -> AsyncIterator[ControlTable]:
    """Give ``control`` as it is now, for a command. Raises ConfigError and Retryable as followed_control does."""
    table = _table(settings)
    try:
        await table.start()
        require_pinned(table)
        yield table
    finally:
        await table.close()


class StageClients(NamedTuple):
    """The partitions of one process share this: records out, ends of logs, and how far their side effects went."""

    publisher: Publisher
    offsets: Offsets
    committed: CommittedOffsets


@contextlib.asynccontextmanager
async def stage_clients(
    kafka: KafkaEndpoint, group: str, topic: str, stop: asyncio.Event
) -> AsyncIterator[StageClients]:
    """Open the clients of a stage. ``group`` holds the committed offsets of ``topic``; errors as followed_control."""
    clients = StageClients(Publisher(kafka), Offsets(kafka), CommittedOffsets(kafka, group, topic))
    try:
        await retry_until(clients.committed.start, START_S, f"the committed offsets of {topic}", stop)
        await retry_until(clients.publisher.start, START_S, f"a producer at {kafka.bootstrap}", stop)
        yield clients
    finally:
        for client in clients:
            await client.close()
