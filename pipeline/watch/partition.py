"""One partition of ``findings``: read, correlated, and its alerts written. The watch worker holds one per partition.

It reads the partition itself and depends on no commits but its own (in a group of its own, once the alerts of
everything before are acknowledged). Taking the partition reads again from ``REREAD_MS`` before the committed offset and
writes what is missing in ``alerts``. Alert ids are deterministic, so a crash between writing and committing changes
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from pipeline.errors import Malformed, Retryable
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, FindingEvent
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.retry import retry_forever
from pipeline.watch import correlate as watch

_log = logging.getLogger(__name__)
GROUP = "sluice-watch-marks"
"""Holds the committed offsets."""
MAX_SEEN = 50_000
"""Alert ids remembered, the oldest forgotten first; a forgotten one may be written again, with the same bytes."""


class PartitionWatch:
    """One partition of ``findings``: its state, what was read, and what ``alerts`` already holds."""

    def __init__(self, bootstrap: str, partition: int, publisher: Publisher) -> None:
        self._bootstrap, self._partition, self._publisher = bootstrap, partition, publisher
        self._reader = PartitionReader(bootstrap, "findings", partition)
        self._offsets = CommittedOffsets(bootstrap, GROUP, "findings")
        self._state = watch.WatchState()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._since = 0
        self._committed = 0
        self._lock = asyncio.Lock()
        self.closing = asyncio.Event()
        """Set once the partition is given back; whoever takes it next reads on from the committed offset."""
        self.malformed = 0
        self.position = 0

    async def take(self) -> None:
        """Open the partition: rebuild the state and write what is missing. Raises Retryable."""
        async with self._lock:
            await self._offsets.start()
            start, self._since = await self._reread_from()
            await self._recall_alerts()
            await self._reader.start(start)
            self.position = start
            await self._read_to_end()
            await self._commit()

    async def fold_to(self, offset: int) -> None:
        """Fold everything up to and including ``offset``; alerts are acknowledged when this returns."""
        async with self._lock:
            if offset < self.position or self.closing.is_set():
                return
            # Read from the log itself: Faust's own order and completeness then do not matter.
            await self._read_to_end()

    async def sweep(self) -> None:
        """Fold what Faust has not handed over, and commit how far everything is done. Raises Retryable, Stopped."""
        async with self._lock:
            if not self.closing.is_set():
                await self._read_to_end()
                await self._commit()

    async def close(self) -> None:
        """Commit and let go. Waits for the record in work, but not for a broker that is away."""
        self.closing.set()
        async with self._lock:
            try:
                await self._commit()
            except Retryable as error:
                _log.warning("watch: findings[%d] left without a commit: %s", self._partition, error)
            await self._reader.close()
            await self._offsets.close()

    async def _reread_from(self) -> tuple[int, int]:
        """Give the offset to read again from, and the append time from which nothing is missing (0: all there is)."""
        begin, end = await self._reader.begin(), await self._reader.end()
        committed = await self._offsets.get(self._partition)
        if not begin < committed <= end:
            return begin, 0
        await self._reader.start(committed - 1)
        while not (last := await self._reader.poll(1)):
            pass
        since = max(0, last[0].time - watch.REREAD_MS)
        first = await self._reader.offset_since(since)
        start = committed - 1 if first is None else min(first, committed - 1)
        return (begin, 0) if start <= begin else (start, since)

    async def _recall_alerts(self) -> None:
        """Ids that ``alerts`` holds from the time read again on; an alert is appended after its findings."""
        reader = PartitionReader(self._bootstrap, "alerts", self._partition)
        try:
            await reader.start(await reader.offset_since(self._since))
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

        Raises Stopped only while closing; the state is of no use then.
        """
        key, value = alert.tenant.encode(), encode(alert)

        async def send() -> None:
            await self._publisher.send("alerts", self._partition, key, value)

        await retry_forever(send, self.closing, f"alert {alert.alert} to be acknowledged")
        self._remember(alert.alert)
        _log.info("watch: %s for tenant %s (%s)", alert.rule, alert.tenant, alert.alert)

    def _remember(self, alert: str) -> None:
        self._seen[alert] = None
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    async def _commit(self) -> None:
        if self.position != self._committed:
            await self._offsets.set(self._partition, self.position)
            self._committed = self.position
