"""One partition of ``findings``: read, correlated, and its alerts written. The watch worker holds one per partition.

It reads the partition itself, so it depends on nobody's commits but its own *mark* (committed to a group of its own
after the alerts of everything before it are acknowledged). Taking the partition reads again from ``REREAD_MS`` before
the mark and writes what is missing in ``alerts``. Alert ids are deterministic, so a crash between writing and marking
changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.errors import Malformed, Retryable
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, FindingEvent
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.shutdown import stop_consumer
from pipeline.kafka.writer import Publisher
from pipeline.watch import correlate as watch

_log = logging.getLogger(__name__)
MARKS = "sluice-watch-marks"
MAX_SEEN = 50_000
"""Alert ids remembered, the oldest forgotten first; a forgotten one may be written again, with the same bytes."""
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
        self._closing = False
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
                self.position = start
            except KafkaError as error:
                raise Retryable(f"findings[{self._partition}]: {error!r}") from error
            await self._read_to_end()
            await self._mark()

    @property
    def closed(self) -> bool:
        """True once the partition was given back; whoever takes it next reads on from the mark."""
        return self._closing

    async def feed(self, offset: int) -> None:
        """Fold everything up to and including ``offset``; alerts are acknowledged when this returns."""
        async with self._lock:
            if offset < self.position or self._closing:
                return
            # Read from the log itself: Faust's own order and completeness then do not matter.
            await self._read_to_end()

    async def sweep(self) -> None:
        """Fold what Faust has not handed over, and mark how far everything is done. Raises Retryable."""
        async with self._lock:
            if not self._closing:
                await self._read_to_end()
                await self._mark()

    async def close(self) -> None:
        """Mark and let go. Waits for the record in work, but not for a broker that is away."""
        self._closing = True
        async with self._lock:
            try:
                await self._mark()
            except Retryable as error:
                _log.warning("watch: findings[%d] left without a mark: %s", self._partition, error)
            await self._reader.close()
            await stop_consumer(self._marks)

    async def _reread_from(self) -> tuple[int, int]:
        """Offset to read again from, and the append time from which on nothing is missing (0: all there is)."""
        at = self._reader.at
        begin = (await self._marks.beginning_offsets([at]))[at]
        end = (await self._marks.end_offsets([at]))[at]
        mark = await self._marks.committed(at)
        if mark is None or not begin < mark <= end:
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
                try:
                    self._remember(decode(Alert, item.value).alert)
                except Malformed as error:
                    _log.error("watch: alerts[%d] passed over record %d: %s", self._partition, item.offset, error)
        finally:
            await reader.close()

    async def _read_to_end(self) -> None:
        if self._reader.position != self.position:
            # a batch that was left half-way: fold its rest, and only that
            self._reader.seek(self.position)
        end = await self._reader.end()
        while self.position < end:
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
        """Write until acknowledged; the state is ahead of the log meanwhile, so nothing else may happen first.

        Raises Retryable only while closing; the state is of no use then.
        """
        value = encode(alert)
        while True:
            try:
                await self._publisher.send("alerts", self._partition, alert.tenant.encode(), value)
                break
            except Retryable as error:
                if self._closing:
                    raise
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


def _marks(bootstrap: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=MARKS,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
