"""A worker tells of itself whether it serves what it was given: for ``/readyz``, its metrics and its log."""

from __future__ import annotations

import asyncio
import logging

from pipeline.errors import Retryable
from pipeline.kafka.clock_watch import ClockWatch
from pipeline.metrics import Meters, Metric
from pipeline.retry import retry_forever

METRICS: tuple[Metric, ...] = (
    Metric("sluice_worker_partitions", "gauge", "Partitions that this worker serves."),
    Metric("sluice_worker_partitions_ended", "gauge", "Partitions that ended by an error and are not served."),
    Metric("sluice_worker_endings_total", "counter", "How often a partition ended by an error."),
    Metric("sluice_worker_clock_apart_seconds", "gauge", "Largest difference to a broker's clock, either way."),
    Metric(
        "sluice_worker_clock_behind", "gauge", "1 where this worker is behind its peers and gave its partitions up."
    ),
)
_log = logging.getLogger(__name__)


class WorkerStatus:
    """The partitions of one process and its clock; ``faults`` is empty where all is well."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.clock_watch = ClockWatch()
        self.meters = Meters(METRICS)
        self.given_up = ""
        """Reason for which this worker has given all its partitions up."""
        self._serving: set[int] = set()
        self._ended: dict[int, str] = {}

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

    def faults(self) -> list[str]:
        """Give the reasons for which this worker is not ready, partition by partition."""
        found = [f"{self.stage}[{partition}] is not served: {reason}" for partition, reason in self._ended.items()]
        found += [f"{self.stage}[{partition}]: {what}" for partition, what in self.clock_watch.faults().items()]
        return [*found, self.given_up] if self.given_up else found

    def render(self) -> bytes:
        """Give the metrics as Prometheus text."""
        levels = {
            "sluice_worker_partitions": len(self._serving),
            "sluice_worker_partitions_ended": len(self._ended),
            "sluice_worker_clock_apart_seconds": self.clock_watch.furthest_ms / 1000,
            "sluice_worker_clock_behind": bool(self.given_up),
        }
        for name, value in levels.items():
            self.meters.level(name, value)
        return self.meters.render()

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
