"""The ``control`` topic folded into documents, and kept up to date."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter

from pipeline.control.checked_prefix import NOTHING, CheckedMark, CheckedPrefix
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable, Stopped
from pipeline.events.control import Control
from pipeline.events.signed_control import ControlFold
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.metrics import PASSED_OVER, MetricSample
from pipeline.retry import retry_forever

_log = logging.getLogger(__name__)
_LOOK_PAUSE_S = 0.05
_LOOK_S = 5.0


class ControlTable:
    """``control`` is mutated in place; its version is the offset of the last record read.

    ``pin`` is the digest of the first deployment document: see ``ControlFold``. ``prefix`` tells which signatures were
    checked by a start before.
    """

    def __init__(self, kafka: KafkaEndpoint, pin: str, prefix: CheckedPrefix | None = None) -> None:
        self.fold = ControlFold(pin)
        self._prefix = prefix
        self.passed_over: Counter[str] = Counter()
        """Records that changed nothing, by reason."""
        self._reader = PartitionReader(kafka, "control", 0)
        self._lock = asyncio.Lock()
        self._look = asyncio.Lock()
        self._looks = 0
        """Looks at the log's end that have begun."""
        self._looked = 0
        """The last look that has ended."""
        self._end = 0
        self._news = asyncio.Event()

    @property
    def control(self) -> Control:
        return self.fold.control

    async def start(self) -> None:
        """Read all that is there. Raises Retryable where the broker or the topic is absent."""
        await self._reader.start(0)
        async with self._lock:
            items = await self._reader.read_to_end()
            if self.control.version >= 0:
                # a start that is tried again reads from 0, as what is there may have been cut short
                self.fold = ControlFold(self.fold.pin)
            if self._prefix is None:
                self._fold(items)
                return
            self._fold(items, self._prefix.checked([(item.offset, item.value) for item in items]))
            self._prefix.store(self.fold)

    async def refresh(self) -> bool:
        """Read up to the end as of now; True where something came."""
        async with self._lock:
            return self._fold(await self._reader.read_to_end())

    async def follow(self, stop: asyncio.Event) -> None:
        """Fold documents as they come until ``stop`` is set."""
        with contextlib.suppress(Stopped):
            while not stop.is_set():
                await retry_forever(self._poll_once, stop, "records of control")

    async def caught_up(self) -> bool:
        """Tell whether ``follow`` has read, within five seconds, all that was written before this call.

        Callers at the same time share one look at the log's end and looks keep a distance: a flood costs no more.
        """
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._look_at_end(self._looks)
                while self.control.version + 1 < self._end:
                    await self._news.wait()
        except (TimeoutError, Retryable):
            return False
        return True

    async def end(self) -> int:
        """Give the offset that the next record will have."""
        return await self._reader.end()

    def readings(self) -> list[MetricSample]:
        """Tell what was read, how far it is behind, and what was passed over."""
        passed = [MetricSample(PASSED_OVER, count, (reason,)) for reason, count in self.passed_over.items()]
        return [MetricSample("sluice_control_version", self.control.version), *passed, *self._reader.lag()]

    async def close(self) -> None:
        await self._reader.close()

    async def _poll_once(self) -> None:
        async with self._lock:
            self._fold(await self._reader.poll(wait_ms=100))

    async def _look_at_end(self, begun: int) -> None:
        """Only a look that began after the first ``begun`` ones tells what their caller may count on."""
        async with self._look:
            if self._looked <= begun:
                await asyncio.sleep(_LOOK_PAUSE_S)
                self._looks += 1
                look, end = self._looks, await self._reader.end()
                self._looked, self._end = look, end

    def _fold(self, items: list[KafkaRecord], checked: CheckedMark = NOTHING) -> bool:
        refused: Counter[str] = Counter()
        for item in items:
            reason = self.fold.read(item.offset, item.value, item.time, checked=checked.covers(item.offset))
            if reason is not None:
                refused[reason] += 1
        if refused:
            self.passed_over += refused
            counts = ", ".join(f"{count} {reason}" for reason, count in refused.items())
            _log.warning("control: records up to %d were passed over: %s", items[-1].offset, counts)
        if items:
            self._news.set()
            self._news = asyncio.Event()
        return bool(items)
