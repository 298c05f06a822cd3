"""Runs notify: alerts to webhooks, attempts to ``deliveries``. At least once, always under the same ``webhook-id``.

The consumer group says which partitions are ours. Its committed offset of ``alerts`` is that of the oldest alert that
is not finished; from there on a partition is read again when it is taken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.control.table import ControlTable
from pipeline.errors import Retryable
from pipeline.keys.vault import Vault
from pipeline.notify.partition import NotifySettings, OutboxContext, PartitionOutbox
from pipeline.notify.webhook import WebhookSender

__all__ = ["NotifySettings", "run"]
_log = logging.getLogger(__name__)
GROUP = "sluice-notify"
_PAUSE_S = 1.0
_MARK_S = 5.0


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """The partitions that the group gave to this worker."""

    def __init__(self, desk: OutboxContext, group: AIOKafkaConsumer) -> None:
        self._desk, self._group = desk, group
        self._outboxes: dict[int, PartitionOutbox] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take these. The group's consumer reads nothing itself."""
        self._group.pause(*assigned)
        self._stop = asyncio.Event()
        self._tasks = [asyncio.create_task(self._deliver(at, self._stop)) for at in assigned]

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give back all: finish what is under way, and mark."""
        self._stop.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.mark()
        self._outboxes.clear()
        self._tasks.clear()

    async def mark(self) -> None:
        """Commit how far everything is finished."""
        lows = {TopicPartition("alerts", partition): outbox.low for partition, outbox in self._outboxes.items()}
        marks = {at: low for at, low in lows.items() if low is not None}
        try:
            if marks:
                await self._group.commit(marks)
        except KafkaError as error:
            _log.warning("notify: no mark: %r", error)

    def check(self) -> None:
        """Raise what ended a partition, if anything did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _deliver(self, at: TopicPartition, stop: asyncio.Event) -> None:
        while not stop.is_set():
            outbox = self._outboxes[at.partition] = PartitionOutbox(self._desk, at.partition)
            try:
                await outbox.run(await self._group.committed(at), stop)
            except (Retryable, KafkaError) as error:
                _log.warning("notify: alerts[%d] not delivered, again: %r", at.partition, error)
                await asyncio.sleep(_PAUSE_S)


async def run(bootstrap: str, feed: ControlTable, vault: Vault, settings: NotifySettings, stop: asyncio.Event) -> None:
    """Deliver until ``stop`` is set. ``feed`` is started and followed by the caller.

    Raises Retryable without a broker (start again), Fatal where ``alerts`` was cut below what was read.
    """
    async with WebhookSender(settings.allow_private, settings.timeout_s) as courier:
        desk = OutboxContext(bootstrap, feed, vault, settings, courier)
        group = _group(bootstrap, settings.instance)
        crew = RebalanceListener(desk, group)
        group.subscribe(["alerts"], listener=crew)
        try:
            await group.start()
            await _follow(group, crew, stop)
        except KafkaError as error:
            raise Retryable(f"notify: {error!r}") from error
        finally:
            await crew.on_partitions_revoked(())
            await group.stop()
            await desk.publisher.close()


async def _follow(group: AIOKafkaConsumer, crew: RebalanceListener, stop: asyncio.Event) -> None:
    marked = time.monotonic()
    while not stop.is_set():
        # all partitions are paused: this only keeps the membership alive
        await group.getmany(timeout_ms=200)
        crew.check()
        if time.monotonic() - marked >= _MARK_S:
            await crew.mark()
            marked = time.monotonic()


def _group(bootstrap: str, instance: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=GROUP,
        group_instance_id=instance or None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
