"""Shares the partitions of a topic among the workers of a group. The group says who should serve, nothing more.

A rebalance stops only what moved away. Old and new owner may overlap for a moment; what a partition writes must be
safe under two writers anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from pipeline.errors import Retryable
from pipeline.kafka.shutdown import stop_consumer

Assign = tuple[int, ...]


_log = logging.getLogger(__name__)
_PAUSE_S = 1.0
Serve = Callable[[int, asyncio.Event], Awaitable[None]]


class PartitionTasks:
    """The partitions held by this process, one task each."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._held: dict[int, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self.failed = asyncio.Event()
        self._errors: list[BaseException] = []

    def keep(self, partitions: Iterable[int]) -> None:
        """Hold exactly these: start the newcomers, tell the others to stop."""
        wanted = set(partitions)
        for partition in wanted - self._held.keys():
            stop = asyncio.Event()
            task = asyncio.create_task(self._run(partition, stop))
            self._held[partition] = (stop, task)
        for partition in self._held.keys() - wanted:
            stop, task = self._held.pop(partition)
            stop.set()
            task.add_done_callback(lambda _: None)

    async def close(self) -> None:
        """Stop all and wait. Raises the first error that ended a partition."""
        held, self._held = list(self._held.values()), {}
        for stop, _ in held:
            stop.set()
        await asyncio.gather(*(task for _, task in held))
        if self._errors:
            raise self._errors[0]

    async def _run(self, partition: int, stop: asyncio.Event) -> None:
        try:
            while True:
                try:
                    await self._serve(partition, stop)
                    return
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    # a cancellation that a library let out: nobody asked for it, and the partition would stand still
                    _log.error("partition %d was cancelled from within; serving it anew", partition)
                    await asyncio.sleep(_PAUSE_S)
        except Exception as error:
            # the others go on; a partition whose log broke must not take them along
            _log.exception("partition %d has stopped", partition)
            self._errors.append(error)
            if all(task.done() or task is asyncio.current_task() for _, task in self._held.values()):
                self.failed.set()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, consumer: AIOKafkaConsumer, partitions: PartitionTasks) -> None:
        self._consumer, self._partitions = consumer, partitions

    def on_partitions_revoked(self, revoked: Any) -> None:
        pass

    def on_partitions_assigned(self, assigned: Any) -> None:
        if assigned:
            self._consumer.pause(*assigned)
        self._partitions.keep(at.partition for at in assigned)


class ConsumerGroup(NamedTuple):
    """A consumer group over one topic, and this process's place in it.

    ``instance`` is a name that outlives restarts (KIP-345): whoever comes back under it has its partitions at once,
    and of two that use it the later one puts the earlier one out.
    """

    bootstrap: str
    name: str
    topic: str
    instance: str = ""


async def share(group: ConsumerGroup, serve: Serve, stop: asyncio.Event, assign: tuple[int, ...] = ()) -> None:
    """Serve the partitions that the group gives us (or just ``assign``) until ``stop``. Raises what ended them all."""
    partitions = PartitionTasks(serve)
    if assign:
        partitions.keep(assign)
        await _first(stop, partitions.failed)
        await partitions.close()
        return
    consumer = AIOKafkaConsumer(
        bootstrap_servers=group.bootstrap,
        group_id=group.name,
        group_instance_id=f"{group.name}-{group.instance}" if group.instance else None,
        enable_auto_commit=False,
        session_timeout_ms=6_000,
        heartbeat_interval_ms=1_000,
        rebalance_timeout_ms=10_000,
    )
    try:
        await consumer.start()
        consumer.subscribe([group.topic], listener=_Listener(consumer, partitions))
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
