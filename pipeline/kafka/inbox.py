"""Holds records that have arrived from one partition until they are taken, in offset order, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Protocol

from pipeline.kafka.reader import KafkaRecord, PartitionReader, QueuedRecord
from pipeline.metrics import MetricSample
from pipeline.retry import retry_forever

CAPACITY = 4096
MAX_BYTES = 64 * 1024 * 1024
"""Bound of the values that wait in one queue; twice what the largest step of any stage takes."""
_POLL_MS = 1000
_CANCEL_S = 1.0


class Wakeup(Protocol):
    """Wakes a loop that waits for arrivals."""

    def set(self) -> None: ...


class DelayedWakeup:
    """Rings another one a little later, so that what is in no hurry is taken with what is."""

    def __init__(self, wakeup: Wakeup, seconds: float) -> None:
        self._wakeup, self._seconds = wakeup, seconds
        self._due: asyncio.TimerHandle | None = None

    def set(self) -> None:
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(self._seconds, self._ring)

    def _ring(self) -> None:
        self._due = None
        self._wakeup.set()


class Inbox:
    """Pumps a reader into a queue; ``arrived`` is shared, so one wait covers several inboxes."""

    def __init__(self, reader: PartitionReader, arrived: Wakeup, capacity: int = CAPACITY) -> None:
        self.reader = reader
        self.waiting: deque[KafkaRecord] = deque()
        self._arrived = arrived
        self._room = asyncio.Event()
        self._bytes = 0
        self._capacity = capacity
        self._what = f"records of {reader.name}"
        self._closing = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin pumping; the reader must be started."""
        self._pump = asyncio.create_task(self._run())

    def peek(self, limit: int) -> list[KafkaRecord]:
        """Give the first records, at most ``limit``, and leave them in place. Raises what ended the pump, if any."""
        if self._pump is not None and self._pump.done() and not self._pump.cancelled():
            self._pump.result()
        return list(islice(self.waiting, limit))

    def drop(self, count: int) -> None:
        """Remove the first ``count`` records."""
        for _ in range(count):
            self._bytes -= len(self.waiting.popleft().value)
        self._room.set()

    async def reach_end(self) -> bool:
        """Wait until all that the partition holds now is in the queue; False where the queue is full before."""
        end = await self.reader.end()
        while self.reader.position < end and not self._full:
            self.peek(0)
            await asyncio.sleep(0.001)
        return self.reader.position >= end

    def lag(self) -> list[MetricSample]:
        """Tell how far the taking of records is behind their arrival in the partition."""
        if not self.waiting:
            return self.reader.lag()
        oldest = self.waiting[0]
        return self.reader.lag(QueuedRecord(oldest.offset if oldest.first < 0 else oldest.first, oldest.time))

    @property
    def _full(self) -> bool:
        return len(self.waiting) >= self._capacity or self._bytes >= MAX_BYTES

    async def close(self) -> None:
        self._closing.set()
        while self._pump is not None and not self._pump.done():
            # the library below may swallow one cancellation
            self._pump.cancel()
            await asyncio.wait([self._pump], timeout=_CANCEL_S)
        if self._pump is not None and not self._pump.cancelled():
            # whoever closes is going anyway
            self._pump.exception()
        await self.reader.close()

    async def _run(self) -> None:
        try:
            while True:
                await self._step()
        finally:
            self._arrived.set()

    async def _step(self) -> None:
        while self._full:
            self._room.clear()
            await self._room.wait()
        items = await retry_forever(self._poll, self._closing, self._what)
        if items:
            self.waiting.extend(items)
            self._bytes += sum(len(item.value) for item in items)
            self._arrived.set()

    async def _poll(self) -> list[KafkaRecord]:
        return await self.reader.poll(self._capacity, _POLL_MS)
