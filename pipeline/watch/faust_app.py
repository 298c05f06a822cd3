"""The watch stage as a Faust worker: ``findings`` in, ``alerts`` out, one process of its own.

Faust spreads the partitions over the workers and hands over records, no more: it may commit past unfinished records
and may stop delivering without a word. So each partition is read by its own ``PartitionWatch``; what Faust hands over
only says that there is something to read, and a sweep looks anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable, Stopped
from pipeline.kafka.clients import faust_options
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.kafka.writer import Publisher
from pipeline.retry import retry_forever
from pipeline.watch.partition import PartitionWatch

_log = logging.getLogger(__name__)
APP = "sluice-watch"
SWEEP_S = 5.0
"""How often a partition is read to its end and marked, whatever Faust handed over."""
_SESSION_S = 10.0
"""How long the broker waits for a worker that fell silent before another takes its partitions."""


class WatchedPartitions:
    """The partitions that this worker holds, each taken once."""

    def __init__(self, kafka: KafkaEndpoint, status: WorkerStatus | None = None) -> None:
        self._kafka = kafka
        self._status = status or WorkerStatus("watch")
        self._status.checks.append(self._untaken)
        self._publisher = Publisher(kafka)
        self._watches: dict[int, asyncio.Task[PartitionWatch]] = {}
        self._closing = asyncio.Event()

    def take(self, partition: int) -> asyncio.Task[PartitionWatch]:
        """Give the partition, which is being taken from the first call on."""
        task = self._watches.get(partition)
        if task is None:
            task = self._watches[partition] = asyncio.create_task(self._take(partition))
        return task

    async def keep(self, partitions: set[int]) -> None:
        """Take these and give back all others."""
        for partition in set(self._watches) - partitions:
            self._status.leaves(partition)
            await self._release(self._watches.pop(partition))
        for partition in partitions:
            self.take(partition)

    async def sweep(self) -> None:
        """Sweep all that are taken. Faust may stop delivering without a word; this is what bounds the wait."""
        for partition, task in list(self._watches.items()):
            if task.done() and not task.cancelled():
                try:
                    await task.result().sweep()
                except (Retryable, Stopped) as error:
                    _log.warning("watch: not swept, again in %.0f s: %s", SWEEP_S, error)
                    self._status.ended(partition, error)
                else:
                    self._status.serves(partition)
                    self._status.recovered(partition)

    async def close(self) -> None:
        """Commit and give back everything."""
        self._closing.set()
        await self.keep(set())
        await self._publisher.close()

    async def _take(self, partition: int) -> PartitionWatch:
        async def take() -> PartitionWatch:
            watch = PartitionWatch(self._kafka, partition, self._publisher)
            try:
                await watch.take()
            except Retryable:
                await watch.close()
                raise
            return watch

        watch = await retry_forever(take, self._closing, f"findings[{partition}] to be readable")
        self._status.serves(partition)
        self._status.add(watch.readings)
        return watch

    def _untaken(self) -> list[str]:
        taking = [partition for partition, task in self._watches.items() if not task.done()]
        return [f"watch[{partition}] reads again what it needs to remember" for partition in sorted(taking)]

    async def _release(self, task: asyncio.Task[PartitionWatch]) -> None:
        if not task.done():
            task.cancel()
        watch = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(watch, PartitionWatch):
            self._status.remove(watch.readings)
            await watch.close()


def build(kafka: KafkaEndpoint, partitions: WatchedPartitions, folder: Path, instance: str = "") -> faust.App:
    """Make the Faust app: no web server, no topics of its own, nothing on disk but empty folders in ``folder``.

    ``instance`` is the worker's fixed name in the group; with one, a worker that comes back within ``_SESSION_S``
    goes on at once.
    """
    app = faust.App(
        APP,
        **faust_options(kafka),
        store="memory://",
        datadir=folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{APP}-{instance}" if instance else None,
        web_enabled=False,
        broker_commit_interval=5.0,
        broker_session_timeout=_SESSION_S,
        broker_heartbeat_interval=_SESSION_S / 3,
    )
    findings = app.topic("findings", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    async def correlate(stream: Any) -> AsyncIterator[None]:
        async for event in stream.events():
            watch = await asyncio.shield(partitions.take(event.message.partition))
            # Faust cancels agents when partitions move; a record half folded would be lost to the state.
            await asyncio.shield(asyncio.ensure_future(_fold(watch, event.message.offset)))
            yield None

    app.agent(findings, name="correlate")(correlate)
    app.timer(interval=SWEEP_S)(partitions.sweep)

    async def assigned(_app: faust.App, assigned: Any, **_: Any) -> None:
        await partitions.keep({tp.partition for tp in assigned if tp.topic == "findings"})

    app.on_partitions_assigned.connect(cast(Any, assigned))
    return app


async def run(
    kafka: KafkaEndpoint, stop: asyncio.Event, instance: str = "", status: WorkerStatus | None = None
) -> None:
    """Watch until ``stop`` is set, in the running loop. Raises Retryable where the Faust app did not start or ended."""
    status = status or WorkerStatus("watch")
    partitions = WatchedPartitions(kafka, status)
    # by default Faust makes one in the current folder, which may be read-only
    folder = tempfile.TemporaryDirectory(prefix="sluice-watch-")
    app = build(kafka, partitions, Path(folder.name), instance)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(_crashed(app))]
    try:
        await app.start()
        status.starting = False
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    except KafkaError as error:
        raise Retryable(f"the Faust app did not start: {error!r}") from error
    finally:
        for task in waiting:
            task.cancel()
        await app.stop()
        await partitions.close()
        folder.cleanup()
    if app.crash_reason is not None:
        raise Retryable(f"the Faust app ended: {app.crash_reason!r}") from app.crash_reason


async def _crashed(app: faust.App) -> None:
    while not app.should_stop:  # noqa: ASYNC110 - Faust offers no event for it
        await asyncio.sleep(0.2)


async def _fold(watch: PartitionWatch, offset: int) -> None:
    # An agent that raises would lose the record, as Faust acknowledges it all the same.
    with contextlib.suppress(Stopped):
        await retry_forever(lambda: watch.fold_to(offset), watch.closing, f"record {offset} of findings")
