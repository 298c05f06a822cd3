"""The watch stage as a Faust worker: ``findings`` in, ``alerts`` out, one process of its own.

Faust spreads the partitions over the workers and hands over records. Its commits are not trusted, as it may commit
past unfinished records: each partition has a *mark* of our own (committed to another group after the alerts of
everything before it are acknowledged). Taking a partition reads ``findings`` again from ``REREAD_MS`` before the mark,
writes the alerts that are missing in ``alerts``, and any record that Faust leaves out is read from the partition
itself. Alert ids are deterministic, so a crash between writing and marking changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.adapters.kafka import PartitionReader, Publisher
from pipeline.errors import Malformed, Retryable
from pipeline.events.codec import decode, encode
from pipeline.events.records import Alert, FindingEvent
from pipeline.stages import watch

_log = logging.getLogger(__name__)
APP = "sluice-watch"
MARKS = "sluice-watch-marks"
MARK_EVERY = 500
"""Records between marks; a take-over reads at most these and ``REREAD_MS`` again."""
MAX_SEEN = 50_000
_PAUSE_S = 1.0


class PartitionWatch:
    """One partition of ``findings``: its state, what was read, and what ``alerts`` already holds."""

    def __init__(self, bootstrap: str, partition: int, publisher: Publisher) -> None:
        self._bootstrap, self._partition, self._publisher = bootstrap, partition, publisher
        self._reader = PartitionReader(bootstrap, "findings", partition)
        self._marks = _marks(bootstrap)
        self._state = watch.WatchState()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._since = 0
        self._marked = 0
        self._lock = asyncio.Lock()
        self.malformed = 0
        self.position = 0

    async def take(self) -> None:
        """Open the partition: rebuild the state and write what is missing. Raises Retryable."""
        async with self._lock:
            try:
                await self._marks.start()
                self._marks.assign([self._reader.at])
                start, self._since = await self._reread_from()
                await self._recall_alerts()
                await self._reader.start(start)
            except KafkaError as error:
                raise Retryable(f"findings[{self._partition}]: {error!r}") from error
            await self._read_to_end()
            await self._mark()

    async def feed(self, offset: int) -> None:
        """Fold everything up to and including ``offset``; alerts are acknowledged when this returns."""
        async with self._lock:
            if offset < self.position:
                return
            # Read from the log itself: Faust's own order and completeness then do not matter.
            await self._read_to_end()
            if self.position - self._marked >= MARK_EVERY:
                await self._mark()

    async def close(self) -> None:
        async with self._lock:
            try:
                await self._mark()
            except Retryable as error:
                _log.warning("watch: findings[%d] left without a mark: %s", self._partition, error)
            await self._reader.close()
            await self._marks.stop()

    async def _reread_from(self) -> tuple[int, int]:
        """Offset to read again from, and the append time from which on nothing is missing (0: all there is)."""
        at = self._reader.at
        begin = (await self._marks.beginning_offsets([at]))[at]
        mark = await self._marks.committed(at)
        if mark is None or mark <= begin:
            return begin, 0
        self._marks.seek(at, mark - 1)
        last = await self._marks.getone(at)
        since = max(0, last.timestamp - watch.REREAD_MS)
        found = (await self._marks.offsets_for_times({at: since}))[at]
        start = mark - 1 if found is None else min(found.offset, mark - 1)
        return (begin, 0) if start <= begin else (start, since)

    async def _recall_alerts(self) -> None:
        """Ids that ``alerts`` holds from the time read again on; an alert is appended after its findings."""
        at = TopicPartition("alerts", self._partition)
        reader = PartitionReader(self._bootstrap, *at)
        found = (await self._marks.offsets_for_times({at: self._since}))[at]
        try:
            await reader.start(found.offset if found is not None else None)
            for item in await reader.read_to_end():
                self._remember(decode(Alert, item.value).alert)
        finally:
            await reader.close()

    async def _read_to_end(self) -> None:
        self.position = self._reader.position
        end = await self._reader.end()
        while self._reader.position < end:
            for item in await self._reader.poll():
                await self._fold(item.value)
                self.position = item.offset + 1

    async def _fold(self, value: bytes) -> None:
        try:
            event = decode(FindingEvent, value)
        except Malformed as error:
            self.malformed += 1
            _log.error("watch: findings[%d] passed over a record: %s", self._partition, error)
            return
        for alert in watch.apply(self._state, event):
            if alert.alert not in self._seen and watch.covered(alert, self._since):
                await self._write(alert)

    async def _write(self, alert: Alert) -> None:
        """Write until acknowledged; the state is ahead of the log meanwhile, so nothing else may happen first."""
        value = encode(alert)
        while True:
            try:
                await self._publisher.send("alerts", self._partition, alert.tenant.encode(), value)
                break
            except Retryable as error:
                _log.warning("watch: alert %s not acknowledged, again: %s", alert.alert, error)
                await asyncio.sleep(_PAUSE_S)
        self._remember(alert.alert)
        _log.info("watch: %s for tenant %s (%s)", alert.rule, alert.tenant, alert.alert)

    def _remember(self, alert: str) -> None:
        self._seen[alert] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    async def _mark(self) -> None:
        if self.position == self._marked:
            return
        try:
            await self._marks.commit({self._reader.at: self.position})
        except KafkaError as error:
            raise Retryable(f"findings[{self._partition}]: no mark at {self.position}: {error!r}") from error
        self._marked = self.position


class Partitions:
    """The partitions that this worker holds, each taken once."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._publisher = Publisher(bootstrap)
        self._held: dict[int, asyncio.Task[PartitionWatch]] = {}

    def hold(self, partition: int) -> asyncio.Task[PartitionWatch]:
        """The partition, being taken from the first call on."""
        task = self._held.get(partition)
        if task is None:
            task = self._held[partition] = asyncio.create_task(self._take(partition))
        return task

    async def keep(self, partitions: set[int]) -> None:
        """Take these and give back all others."""
        for partition in set(self._held) - partitions:
            await self._release(self._held.pop(partition))
        for partition in partitions:
            self.hold(partition)

    async def close(self) -> None:
        await self.keep(set())
        await self._publisher.close()

    async def _take(self, partition: int) -> PartitionWatch:
        while True:
            held = PartitionWatch(self._bootstrap, partition, self._publisher)
            try:
                await held.take()
                return held
            except Retryable as error:
                _log.warning("watch: findings[%d] not taken, again: %s", partition, error)
                await held.close()
                await asyncio.sleep(_PAUSE_S)

    @staticmethod
    async def _release(task: asyncio.Task[PartitionWatch]) -> None:
        if not task.done():
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, PartitionWatch):
            await outcome.close()


def build(bootstrap: str, partitions: Partitions) -> faust.App:
    """The Faust app: no web server, no topics of its own, nothing on disk."""
    app = faust.App(
        APP,
        broker=[f"kafka://{server}" for server in bootstrap.split(",")],
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="latest",
        web_enabled=False,
        broker_commit_interval=5.0,
    )
    findings = app.topic("findings", key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    async def correlate(stream: Any) -> AsyncIterator[None]:
        async for event in stream.events():
            held = await asyncio.shield(partitions.hold(event.message.partition))
            await _insist(held, event.message.offset)
            yield None

    app.agent(findings, name="correlate")(correlate)

    async def assigned(_app: faust.App, assigned: Any, **_: Any) -> None:
        await partitions.keep({tp.partition for tp in assigned if tp.topic == "findings"})

    app.on_partitions_assigned.connect(cast(Any, assigned))
    return app


async def run(bootstrap: str, stop: asyncio.Event) -> None:
    """Watch until ``stop`` is set, in the running loop. Raises what ended the Faust app, if anything did."""
    partitions = Partitions(bootstrap)
    app = build(bootstrap, partitions)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(_crashed(app))]
    try:
        await app.start()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await app.stop()
        await partitions.close()
    if app.crash_reason is not None:
        raise Retryable(f"the Faust app ended: {app.crash_reason!r}") from app.crash_reason


async def _crashed(app: faust.App) -> None:
    while not app.should_stop:  # noqa: ASYNC110 - Faust offers no event for it
        await asyncio.sleep(0.2)


async def _insist(held: PartitionWatch, offset: int) -> None:
    # An agent that raises would lose the record, as Faust acknowledges it all the same.
    while True:
        try:
            return await held.feed(offset)
        except Retryable as error:
            _log.warning("watch: record %d not folded, again: %s", offset, error)
            await asyncio.sleep(_PAUSE_S)


def _marks(bootstrap: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=MARKS,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
