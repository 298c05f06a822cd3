"""Shares the partitions of a topic among the workers of a group. The group says who should serve, nothing more.

A rebalance stops only what moved away. Old and new owner may overlap for a moment; what a partition writes must be
safe under two writers anyway. Side effects that leave Kafka are not, so such a group hands over in order
(``handover_s``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable, Stopped
from pipeline.kafka.clients import make_consumer
from pipeline.kafka.shutdown import stop_consumer
from pipeline.retry import retry_forever

Assign = tuple[int, ...]
Serve = Callable[[int, asyncio.Event], Awaitable[None]]
"""Serves a partition until the event is set."""
_log = logging.getLogger(__name__)
_REBALANCE_S = 10


class PartitionTasks:
    """The partitions that this process serves, one task each."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._serving: dict[int, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self.failed = asyncio.Event()
        """Set when every partition has ended by an error."""
        self._errors: list[BaseException] = []

    def keep(self, partitions: Iterable[int]) -> None:
        """Serve exactly these: start the newcomers, tell the others to stop."""
        wanted = set(partitions)
        for partition in self._serving.keys() - wanted:
            stop, task = self._serving.pop(partition)
            stop.set()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        for partition in wanted - self._serving.keys():
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
        async def serve() -> None:
            try:
                await self._serve(partition, stop)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # a library let it out: no owner asked for it, and the partition would stand still
                raise Retryable("cancelled from within") from None

        try:
            await retry_forever(serve, stop, f"partition {partition} to be served")
        except Stopped as error:
            _log.warning("partition %d: %s", partition, error)
        except Exception as error:
            # the others go on; a partition whose log broke must not take them along
            _log.exception("partition %d has stopped", partition)
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


async def share(group: ConsumerGroup, serve: Serve, stop: asyncio.Event, assign: Assign = ()) -> None:
    """Serve the partitions that the group gives us (or just ``assign``) until ``stop``. Raises what ended them all."""
    partitions = PartitionTasks(serve)
    if assign:
        partitions.keep(assign)
        await _first(stop, partitions.failed)
        await partitions.close()
        return
    consumer = group.consumer()
    try:
        await consumer.start()
        listener = _Listener(consumer, partitions, in_order=group.handover_s > 0)
        consumer.subscribe([group.topic], listener=listener)
        while not stop.is_set() and not partitions.failed.is_set():
            # nothing is fetched, everything is paused: this keeps the membership alive
            await consumer.getmany(timeout_ms=200)
    except KafkaError as error:
        raise Retryable(f"group {group.name}: {error!r}") from error
    finally:
        await partitions.close()
        await stop_consumer(consumer)


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
