"""What processes and operators' acts have in common: patience, the control feed, connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from pipeline.config import Settings
from pipeline.control import topics as topic_admin
from pipeline.control.table import ControlTable
from pipeline.errors import Retryable
from pipeline.events import plans
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.writer import Publisher

_PATIENCE_S = 90.0
PAUSE_S = 0.25


async def retry_until(act: Callable[[], Awaitable[None]], patience_s: float = _PATIENCE_S) -> None:
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
            await asyncio.sleep(PAUSE_S)


@contextlib.asynccontextmanager
async def control_of(settings: Settings) -> AsyncIterator[ControlTable]:
    """A started feed that is kept up to date; the partition count of the broker must be the pinned one."""
    feed = ControlTable(settings.kafka.bootstrap)
    stop = asyncio.Event()

    async def ready() -> None:
        await feed.start()
        if feed.control.deployment is None:
            raise Retryable("control holds no deployment document; run: sluice topics apply")

    async def as_pinned() -> None:
        pinned = feed.control.require_deployment().partitions
        await topic_admin.require_partitions(settings.kafka.bootstrap, pinned, plans.pools(feed.control))

    following = None
    try:
        await topic_admin.reach(settings.kafka.bootstrap, _PATIENCE_S)
        await retry_until(ready)
        await retry_until(as_pinned)
        following = asyncio.create_task(feed.follow(stop))
        yield feed
    finally:
        stop.set()
        if following is not None:
            await following
        await feed.close()


@contextlib.asynccontextmanager
async def opened_of(
    bootstrap: str, group: str, topic: str
) -> AsyncIterator[tuple[Publisher, Offsets, CommittedOffsets]]:
    publisher, offsets, marks = Publisher(bootstrap), Offsets(bootstrap), CommittedOffsets(bootstrap, group, topic)
    try:
        await retry_until(marks.start)
        await retry_until(publisher.start)
        yield publisher, offsets, marks
    finally:
        await publisher.close()
        await offsets.close()
        await marks.close()
