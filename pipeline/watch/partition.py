"""One partition of ``findings``: read, correlated, and its alerts written. The watch worker holds one per partition.

It reads the partition itself and depends on no commits but its own (in a group of its own, once the alerts of
everything before are acknowledged). Taking the partition reads again from ``REREAD_MS`` before the committed offset and
writes what is missing in ``alerts``. Alert ids are deterministic, so a crash between writing and committing changes
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Malformed, Retryable
from pipeline.events.codec import decode
from pipeline.events.emission import Emission
from pipeline.events.messages import Alert
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.metrics import MetricSample
from pipeline.retry import retry_forever
from pipeline.stage import InputBatch
from pipeline.watch.correlate import REREAD_MS
from pipeline.watch.step import WatchStage

_log = logging.getLogger(__name__)
GROUP = "sluice-watch-marks"
"""Holds the committed offsets."""


class PartitionWatch:
    """One partition of ``findings``: its state, what was read, and what ``alerts`` already holds."""

    def __init__(self, kafka: KafkaEndpoint, partition: int, publisher: Publisher) -> None:
        self._kafka = kafka
        self._partition = partition
        self._publisher = publisher
        self._reader = PartitionReader(kafka, "findings", partition)
        self._offsets = CommittedOffsets(kafka, GROUP, "findings")
        self._stage = WatchStage(partition)
        self._state = self._stage.start()
        self._unwritten: list[tuple[Alert, Emission]] = []
        """Alerts that the state has raised and the log does not hold yet; nothing is committed meanwhile."""
        self._committed = 0
        self._lock = asyncio.Lock()
        self.closing = asyncio.Event()
        """Set once the partition is given back; whoever takes it next reads on from the committed offset."""
        self.malformed = 0
        self.position = 0

    def readings(self) -> list[MetricSample]:
        """Tell how far correlating is behind the findings that arrive."""
        return self._reader.lag()

    async def take(self) -> None:
        """Open the partition: rebuild the state and write what is missing. Raises Retryable."""
        async with self._lock:
            await self._offsets.start()
            start, since = await self._reread_from()
            self._stage = WatchStage(self._partition, since)
            self._state = self._stage.fold(self._stage.start(), await self._written_alerts(since))
            await self._reader.start(start)
            self.position = start
            await self._read_to_end()
            await self._commit()

    async def fold_to(self, offset: int) -> None:
        """Fold everything up to and including ``offset``; alerts are acknowledged when this returns."""
        async with self._lock:
            if self.closing.is_set() or (offset < self.position and not self._unwritten):
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
        since = max(0, last[0].time - REREAD_MS)
        first = await self._reader.offset_since(since)
        start = committed - 1 if first is None else min(first, committed - 1)
        return (begin, 0) if start <= begin else (start, since)

    async def _written_alerts(self, since: int) -> list[Alert]:
        """Read the alerts from the append time ``since`` on; an alert is appended after its findings."""
        reader = PartitionReader(self._kafka, "alerts", self._partition)
        alerts: list[Alert] = []
        try:
            await reader.start(await reader.offset_since(since))
            for item in await reader.read_to_end():
                try:
                    alerts.append(decode(Alert, item.value))
                except Malformed as error:
                    _log.error("watch: alerts[%d] passed over record %d: %s", self._partition, item.offset, error)
        finally:
            await reader.close()
        return alerts

    async def _read_to_end(self) -> None:
        await self._write()
        if self._reader.position != self.position:
            # records were read in a call that was cut short: they are read again
            self._reader.seek(self.position)
        end = await self._reader.end()
        while self.position < end:
            items = await self._reader.poll()
            if not items:
                continue
            step = self._stage.step(self._state, InputBatch(items, now_ms()))
            self._state = step.state
            self._unwritten += zip(step.alerts, step.emissions, strict=True)
            self.position = items[-1].offset + 1
            self.malformed += len(step.rejections)
            for rejection in step.rejections:
                _log.error("watch: findings[%d] passed over record %d", self._partition, rejection.offset)
            await self._write()

    async def _write(self) -> None:
        """Write until acknowledged; the state is ahead of the log meanwhile, so nothing else may happen first.

        Raises Stopped only while closing; the state is of no use then.
        """
        while self._unwritten:
            alert, emission = self._unwritten[0]
            send = partial(self._publisher.send, *emission)
            await retry_forever(send, self.closing, f"alert {alert.alert} to be acknowledged")
            self._unwritten.pop(0)
            _log.info("watch: %s for tenant %s (%s)", alert.rule, alert.tenant, alert.alert)

    async def _commit(self) -> None:
        if self.position != self._committed and not self._unwritten:
            await self._offsets.set(self._partition, self.position)
            self._committed = self.position
