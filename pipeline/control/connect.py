"""Opens what every stage needs before it serves: a broker, ``control`` with the pinned partitions, Kafka clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from pipeline.config import Settings
from pipeline.control import topics as topic_admin
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
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

    Raises Retryable where that does not come within START_S, Stopped where ``stop`` is set first.
    """
    table = ControlTable(settings.kafka.endpoint)
    leaving = asyncio.Event()

    async def read() -> None:
        await table.start()
        if table.control.deployment is None:
            raise Retryable("control holds no deployment document; run: sluice topics apply")

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
