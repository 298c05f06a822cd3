"""Shares the partitions of a topic among the workers of a group. The group says who should serve, nothing more.

A rebalance stops only what moved away. Old and new owner may overlap for a moment; what a partition writes must be
safe under two writers anyway. Side effects that leave Kafka are not, so such a group hands over in order
(``handover_s``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable, Stopped, Unrecoverable
from pipeline.kafka.clients import make_admin, make_consumer
from pipeline.kafka.shutdown import stop_consumer
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.retry import Backoff, retry_forever

Assign = tuple[int, ...]
Serve = Callable[[int, asyncio.Event], Awaitable[None]]
"""Serves a partition until the event is set."""
_log = logging.getLogger(__name__)
_REBALANCE_S = 10
AGAIN_S, MAX_AGAIN_S = 1.0, 60.0
"""First and longest pause before a partition that ended by an error is taken again."""
LASTING_S = 5.0
_LOOK_S = 2.0
"""Seconds between two questions for other members, while this worker is behind its peers."""


class PartitionTasks:
    """The partitions that this process serves, one task each."""

    def __init__(self, serve: Serve, status: WorkerStatus | None = None) -> None:
        self._serve = serve
        self._status = status or WorkerStatus("worker")
        self._serving: dict[int, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.failed = asyncio.Event()
        """Set when every partition has ended by an error and none is to be taken again."""
        self._errors: list[BaseException] = []
        self._unrecoverable: set[int] = set()
        """Partitions that this process never takes again."""

    def keep(self, partitions: Iterable[int]) -> None:
        """Serve exactly these: start the newcomers, tell the others to stop."""
        wanted = set(partitions)
        for partition in self._serving.keys() - wanted:
            stop, task = self._serving.pop(partition)
            stop.set()
            if partition not in self._unrecoverable:
                self._status.leaves(partition)
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for partition in wanted - self._serving.keys() - self._unrecoverable:
            stop = asyncio.Event()
            self._serving[partition] = stop, asyncio.create_task(self._run(partition, stop))

    async def finish(self) -> None:
        """Stop all and wait until they have ended."""
        self.keep(())
        await asyncio.gather(*self._leaving)

    async def close(self) -> None:
        """Stop all and wait. Raises the first error that ended a partition."""
        await self.finish()
        if self._errors:
            raise self._errors[0]

    async def _run(self, partition: int, stop: asyncio.Event) -> None:
        """Serve until ``stop``; after an error take the partition again, later each time.

        Beginning anew is safe: whoever takes a partition folds its log first. It ends for good where that could do
        harm, or where the operator has to act.
        """
        backoff = Backoff(f"partition {partition} to be served again", first_s=AGAIN_S, most_s=MAX_AGAIN_S)
        while not stop.is_set():
            try:
                await self._served(partition, stop)
            except Stopped as error:
                _log.warning("partition %d: %s", partition, error)
            except Exception as error:
                # the others go on; a log that broke, or a library that failed, must not take them along
                self._status.ended(partition, error)
                if isinstance(error, Unrecoverable):
                    self._unrecoverable.add(partition)
                elif not isinstance(error, ConfigError) and await self._again(
                    backoff.fail(Retryable(str(error))), stop
                ):
                    continue
                self._end(error)
                return

    async def _served(self, partition: int, stop: asyncio.Event) -> None:
        async def serve() -> None:
            try:
                await self._serve(partition, stop)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # a library let it out: no owner asked for it, and the partition would stand still
                raise Retryable("cancelled from within") from None

        self._status.serves(partition)
        # what has ended before is not called served before it has lasted
        lasting = asyncio.get_running_loop().call_later(LASTING_S, self._status.recovered, partition)
        try:
            await retry_forever(serve, stop, f"partition {partition} to be served")
        finally:
            lasting.cancel()

    async def _again(self, pause_s: float, stop: asyncio.Event) -> bool:
        """Wait before the next attempt; False where the partition is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)
        return not stop.is_set()

    def _end(self, error: BaseException) -> None:
        self._errors.append(error)
        if all(task.done() or task is asyncio.current_task() for _, task in self._serving.values()):
            self.failed.set()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: AIOKafkaConsumer, partitions: PartitionTasks, in_order: bool) -> None:
        self._consumer, self._partitions = consumer, partitions
        self._in_order = in_order

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if self._in_order:
            await self._partitions.finish()

    def on_partitions_assigned(self, assigned: Any) -> None:
        if assigned:
            self._consumer.pause(*assigned)
        self._partitions.keep(source.partition for source in assigned)


class ConsumerGroup(NamedTuple):
    """A consumer group over one topic, and this process's place in it.

    ``instance`` is a name that outlives restarts (KIP-345): whoever comes back under it has its partitions at once,
    and of two that use it the later one puts the earlier one out.
    """

    kafka: KafkaEndpoint
    name: str
    topic: str
    instance: str = ""
    handover_s: float = 0
    """How long a rebalance waits for what is under way in partitions that move; 0: two owners may overlap."""

    def consumer(self) -> AIOKafkaConsumer:
        return make_consumer(
            self.kafka,
            group_id=self.name,
            group_instance_id=f"{self.name}-{self.instance}" if self.instance else None,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            rebalance_timeout_ms=int(1000 * (_REBALANCE_S + self.handover_s)),
        )

    async def members(self) -> int:
        """Count the members, this one included; 1 where no broker tells."""
        admin = make_admin(self.kafka)
        try:
            await admin.start()
            (answer,) = await admin.describe_consumer_groups([self.name])
            return max(1, len(answer.groups[0][5]))
        except KafkaError as error:
            _log.warning("group %s: members unknown: %r", self.name, error)
            return 1
        finally:
            await admin.close()


async def share(
    group: ConsumerGroup,
    serve: Serve,
    stop: asyncio.Event,
    assign: Assign = (),
    status: WorkerStatus | None = None,
) -> None:
    """Serve the partitions that the group gives us (or just ``assign``) until ``stop``. Raises what ended them all.

    A worker that is behind its peers leaves the group, as long as another member is in it, until its clock is right.
    """
    status = status or WorkerStatus(group.name)
    status.starting = False
    partitions = PartitionTasks(serve, status)
    if assign:
        partitions.keep(assign)
        await _first(stop, partitions.failed)
        await partitions.close()
        return
    try:
        while not stop.is_set() and not partitions.failed.is_set():
            if await _belong(group, partitions, stop, status):
                with contextlib.suppress(Stopped):
                    await status.clock_is_right(stop)
    finally:
        await partitions.close()


async def _belong(group: ConsumerGroup, partitions: PartitionTasks, stop: asyncio.Event, status: WorkerStatus) -> bool:
    """Be a member until ``stop``; True where this worker gives its partitions up to peers whose clocks are right."""
    consumer, looked = group.consumer(), 0.0
    try:
        await consumer.start()
        listener = _Listener(consumer, partitions, in_order=group.handover_s > 0)
        consumer.subscribe([group.topic], listener=listener)
        while not stop.is_set() and not partitions.failed.is_set():
            # nothing is fetched, everything is paused: this keeps the membership alive
            await consumer.getmany(timeout_ms=200)
            if status.clock_watch.behind and time.monotonic() - looked > _LOOK_S:
                looked = time.monotonic()
                if await group.members() > 1:
                    return True
    except KafkaError as error:
        raise Retryable(f"group {group.name}: {error!r}") from error
    finally:
        await partitions.finish()
        await stop_consumer(consumer)
    return False


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
