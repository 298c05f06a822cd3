"""A worker holds its clock against the brokers' append times and the times that its peers agreed on.

Two clocks that differ do not say which of them is wrong. A time in a log was agreed by a broker and a peer, so a worker
that is behind both of them knows that it is its own.
"""

from __future__ import annotations

import logging
import time

from pipeline.clock import now_ms

APART_MS = 5_000
"""Clocks that differ by more than this are an alarm."""
_log = logging.getLogger(__name__)


class ClockWatch:
    """Knows the clock of each partition's broker relative to this machine's monotonic clock, which nobody sets.

    So a clock that was set right is known to be right without a further word of the broker.
    """

    def __init__(self) -> None:
        self._brokers: dict[int, int] = {}
        """Partition → its broker's clock less the monotonic one, ms."""
        self._logs: dict[int, int] = {}
        """Partition → the time of its log less the monotonic clock when it was first seen, ms."""
        self._told: set[int] = set()

    def acknowledged(self, partition: int, appended: int, waited_ms: int) -> None:
        """Take the append time of a batch of this worker, which was on its way for ``waited_ms``."""
        latest = appended - monotonic_ms() + waited_ms
        known = self._brokers.get(partition, latest - waited_ms // 2)
        self._brokers[partition] = min(max(known, latest - waited_ms), latest)
        self._tell(partition)

    def arrived(self, partition: int, appended: int) -> None:
        """Take the append time of a record that has just been read: the broker's clock is not behind it."""
        difference = appended - monotonic_ms()
        if difference > self._brokers.get(partition, difference - 1):
            self._brokers[partition] = difference
        self._tell(partition)

    def agreed(self, partition: int, agreed: int) -> None:
        """Take the time of the partition's log."""
        self._logs[partition] = max(self._logs.get(partition, agreed - monotonic_ms()), agreed - monotonic_ms())

    def forget(self, partition: int) -> None:
        """The partition is not served here any more."""
        for known in (self._brokers, self._logs):
            known.pop(partition, None)
        self._told.discard(partition)

    def broker(self, partition: int, otherwise: int) -> int:
        """Give the broker's clock as it stands now, Unix ms; ``otherwise`` where it is not known yet."""
        difference = self._brokers.get(partition)
        return otherwise if difference is None else difference + monotonic_ms()

    def apart_ms(self, partition: int) -> int:
        """Give the ms by which the broker's clock is ahead of this worker's; negative where it is behind."""
        now = now_ms()
        return self.broker(partition, now) - now

    @property
    def furthest_ms(self) -> int:
        """The largest difference to any broker, in either direction."""
        return max((abs(self.apart_ms(partition)) for partition in self._brokers), default=0)

    @property
    def behind(self) -> bool:
        """Tell whether this worker is behind its peers: a log is further than any peer within APART_MS of this clock
        could have brought it, and its broker says so as well."""
        now, monotonic = now_ms(), monotonic_ms()
        return any(
            log + monotonic > now + 2 * APART_MS and self.apart_ms(partition) > APART_MS
            for partition, log in self._logs.items()
        )

    def faults(self) -> dict[int, str]:
        """Give the partitions whose broker's clock is more than APART_MS from this worker's, and by how much."""
        faults = {}
        for partition in sorted(self._brokers):
            apart = self.apart_ms(partition)
            if abs(apart) > APART_MS:
                faults[partition] = (
                    f"the broker's clock is {abs(apart) / 1000:.0f} s {'ahead of' if apart > 0 else 'behind'} this "
                    "worker's; set the clocks (NTP)"
                )
        return faults

    def _tell(self, partition: int) -> None:
        fault = self.faults().get(partition)
        if fault is not None and partition not in self._told:
            self._told.add(partition)
            _log.error("partition %d: %s", partition, fault)
        elif fault is None and partition in self._told:
            self._told.discard(partition)
            _log.info("partition %d: the clocks of broker and worker agree again", partition)


def monotonic_ms() -> int:
    """Give the milliseconds of a clock that runs on whatever is set."""
    return time.monotonic_ns() // 1_000_000
