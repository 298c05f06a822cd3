"""The ``control`` topic folded into documents, and kept up to date."""

from __future__ import annotations

import asyncio
import logging

from pipeline.adapters.kafka import Item, PartitionReader
from pipeline.errors import Malformed, Retryable
from pipeline.events import control

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0


class ControlFeed:
    """``control`` is mutated in place; its version is the offset of the last record read."""

    def __init__(self, bootstrap: str) -> None:
        self.control = control.Control()
        self._reader = PartitionReader(bootstrap, "control", 0)
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Read all that is there. Raises Retryable where the broker or the topic is absent."""
        await self._reader.start(0)
        async with self._lock:
            self._fold(await self._reader.read_to_end())

    async def refresh(self) -> bool:
        """Read up to the end as of now; True where something came."""
        async with self._lock:
            return self._fold(await self._reader.read_to_end())

    async def follow(self, stop: asyncio.Event) -> None:
        """Fold documents as they come until ``stop`` is set."""
        while not stop.is_set():
            try:
                async with self._lock:
                    self._fold(await self._reader.poll(wait_ms=100))
            except Retryable as error:
                _log.warning("control: %s", error)
                await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        await self._reader.close()

    def _fold(self, items: list[Item]) -> bool:
        for item in items:
            try:
                self.control.apply(item.offset, control.parse(item.value))
            except Malformed as error:
                _log.error("control: record %d was passed over: %s", item.offset, error)
                self.control.skip(item.offset)
        return bool(items)
