"""The requests of one partition wait for a decision: they arrive, are opened, and their texts are read elsewhere."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

from detectors.base import Screened, Transcript
from pipeline.admit.clocks import Clocks
from pipeline.admit.intake import Intake, Raw, RequestReader
from pipeline.admit.snapshot import LedgerPosition
from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.kafka.clock_watch import ClockWatch
from pipeline.kafka.inbox import CAPACITY, Inbox
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader, QueuedRecord
from pipeline.metrics import MetricSample

TAKE = 512
"""Requests that are opened together; while they are decided the next ones are being screened."""
Screen = Callable[[Sequence[Transcript]], Awaitable[Sequence[Screened]]]


class RequestQueue:
    """Requests of one partition wait here; ``arrived`` is set when there is more to take."""

    def __init__(
        self,
        kafka: KafkaEndpoint,
        partition: int,
        offsets: Offsets,
        request_reader: RequestReader,
        screen: Screen,
        arrived: asyncio.Event,
        clock_watch: ClockWatch,
    ) -> None:
        self._kafka = kafka
        self._partition = partition
        self._offsets = offsets
        self._request_reader = request_reader
        self._screen = screen
        self._arrived = arrived
        self._clock_watch = clock_watch
        self._inbox = Inbox(self._reader(), arrived)
        self._under_way: asyncio.Task[tuple[int, list[Intake]]] | None = None
        """The next requests, how many of those that wait they are, and what is read of them elsewhere right now."""
        self.pending: deque[Intake] = deque()
        """Opened and read, in order, and not decided."""

    async def start(self, offset: int) -> None:
        """Go to the first request that has no decision."""
        await self._inbox.reader.start(offset)

    def pump(self) -> None:
        """Begin to take what arrives."""
        self._inbox.start()

    @property
    def waiting(self) -> bool:
        """Tell whether any request waits."""
        return bool(self.pending or self._inbox.waiting)

    def lag(self) -> list[MetricSample]:
        """Tell how far decisions are behind the requests that arrive."""
        if not self.pending:
            return self._inbox.lag()
        first = self.pending[0].facts
        return self._inbox.reader.lag(QueuedRecord(first.offset, first.time))

    def by_offset(self) -> dict[int, Intake]:
        """Give the opened requests by offset."""
        return {intake.facts.offset: intake for intake in self.pending}

    def drop(self, count: int) -> None:
        """Forget the first ``count``, which were decided."""
        for _ in range(count):
            self.pending.popleft()

    async def fill(self, position: LedgerPosition) -> None:
        """Take what was opened, and have the next requests opened while these are decided, from ``position`` on."""
        first = position.next_request
        # decided meanwhile by another writer; what is still being screened is passed over when it comes
        self._pass_over(first)
        while self._under_way is None or self._under_way.done() or not self.pending:
            if self._under_way is not None:
                await self._take_opened()
            self._pass_over(first)
            if len(self.pending) >= TAKE or not self._open_next(position):
                return

    async def read_again(self, offsets: Sequence[int]) -> dict[int, Intake]:
        """Read the bodies of requests whose decisions are known already."""
        reader, wanted = self._reader(), set(offsets)
        bodies: dict[int, Intake] = {}
        try:
            await reader.start(min(wanted), max(wanted) + 1)
            while reader.position <= max(wanted):
                for item in await reader.poll():
                    if item.offset in wanted:
                        raw = Raw(item.offset, item.time, item.value, item.headers)
                        bodies[item.offset] = self._request_reader.reopen(raw)
        finally:
            await reader.close()
        return bodies

    async def close(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
        await self._inbox.close()

    def _reader(self) -> PartitionReader:
        return PartitionReader(self._kafka, "requests", self._partition, self._offsets)

    async def _take_opened(self) -> None:
        under_way, self._under_way = self._under_way, None
        assert under_way is not None
        count, intakes = await under_way
        self.pending += intakes
        self._inbox.drop(count)

    def _pass_over(self, first: int) -> None:
        """Forget requests that another writer has decided."""
        while self.pending and self.pending[0].facts.offset < first:
            self.pending.popleft()

    def _open_next(self, position: LedgerPosition) -> bool:
        """Begin to open the next requests; False where none wait."""
        items = self._inbox.peek(CAPACITY)
        if not items:
            return False
        first, now, newest = position.next_request, now_ms(), items[-1].time
        self._clock_watch.arrived(self._partition, newest)
        clocks = Clocks(now, position.time, self._clock_watch.broker(self._partition, max(now, newest)))
        passed = bisect_left(items, first, key=lambda item: item.offset)
        raws = (Raw(i.offset, i.time, i.value, i.headers, i.first) for i in islice(items, passed, None))
        self._under_way = asyncio.create_task(self._open(passed, raws, clocks))
        self._under_way.add_done_callback(lambda _: self._arrived.set())
        return True

    async def _open(self, passed: int, raws: Iterable[Raw], clocks: Clocks) -> tuple[int, list[Intake]]:
        opened = self._request_reader.open(raws, clocks, TAKE)
        await self._request_reader.learn_keys(opened)
        texts = opened.texts
        return passed + opened.records, opened.intakes(await self._screen(texts) if texts else ())
