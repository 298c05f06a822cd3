"""A worker tells of itself whether it serves what it was given: for ``/readyz``, its metrics and its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from pipeline.errors import Retryable
from pipeline.kafka.clock_watch import ClockWatch
from pipeline.metrics import WORKER, Meters, MetricSample
from pipeline.process_status import ProcessStatus
from pipeline.retry import retry_forever

_log = logging.getLogger(__name__)


class ToldPartition(Protocol):
    """One partition of a stage, which tells how far it is."""

    def readings(self) -> Iterable[MetricSample]: ...
    async def run(self, stop: asyncio.Event) -> None: ...


class WorkerStatus(ProcessStatus):
    """The partitions of one process and its clock; ``faults`` is empty where all is well."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.checks.append(self._own_faults)
        self.renderers.append(self._render_own)
        self.clock_watch = ClockWatch()
        self.meters = Meters(WORKER)
        self.given_up = ""
        """Reason for which this worker has given all its partitions up."""
        self._serving: set[int] = set()
        self._ended: dict[int, str] = {}

    async def told(self, part: ToldPartition, stop: asyncio.Event) -> None:
        """Run a part of the stage, and ask it for its readings meanwhile."""
        self.add(part.readings)
        try:
            await part.run(stop)
        finally:
            self.remove(part.readings)

    def serves(self, partition: int) -> None:
        """The partition is being served."""
        self._serving.add(partition)

    def leaves(self, partition: int) -> None:
        """The partition is not this worker's any more."""
        self._serving.discard(partition)
        self._ended.pop(partition, None)

    def ended(self, partition: int, error: BaseException) -> None:
        """The partition ended by an error; a reason that is known already is not logged again."""
        reason = str(error) or repr(error)
        self._serving.discard(partition)
        self.meters.count("sluice_worker_endings_total")
        if self._ended.get(partition) != reason:
            _log.error("%s[%d] is not served: %s", self.stage, partition, reason, exc_info=error)
        self._ended[partition] = reason

    def recovered(self, partition: int) -> None:
        """The partition has been served for a while after it had ended."""
        if self._ended.pop(partition, None) is not None:
            _log.info("%s[%d] is served again", self.stage, partition)

    def is_ended(self, partition: int) -> bool:
        return partition in self._ended

    async def clock_is_right(self, stop: asyncio.Event) -> None:
        """Wait until this worker is no longer behind its peers. Raises Stopped where ``stop`` is set before."""
        self.given_up = f"{self.stage}: this worker's clock is behind its peers; it gave its partitions up"
        _log.error("%s. Set the clock (NTP); it goes on by itself.", self.given_up)

        async def look() -> None:
            if self.clock_watch.behind:
                raise Retryable(self.given_up)

        try:
            await retry_forever(look, stop, "this worker's clock to be right")
        finally:
            self.given_up = ""

    def _own_faults(self) -> list[str]:
        found = [f"{self.stage}[{partition}] is not served: {reason}" for partition, reason in self._ended.items()]
        found += [f"{self.stage}[{partition}]: {what}" for partition, what in self.clock_watch.faults().items()]
        return [*found, self.given_up] if self.given_up else found

    def _render_own(self) -> bytes:
        levels = {
            "sluice_worker_partitions": len(self._serving),
            "sluice_worker_partitions_ended": len(self._ended),
            "sluice_worker_clock_apart_seconds": self.clock_watch.furthest_ms / 1000,
            "sluice_worker_clock_behind": bool(self.given_up),
        }
        for name, value in levels.items():
            self.meters.level(name, value)
        return self.meters.render()
