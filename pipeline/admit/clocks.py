"""A record's time is agreed among the broker that appended it, the worker that reads it and the partition's ledger.

One of these clocks may be wrong by any amount, so a record takes the lesser word and the ledger never goes back: a
clock that is ahead pushes nothing ahead, and one that is behind only delays. Times are Unix ms.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.events.records import AHEAD_MS
from pipeline.events.wire import SKEW_MS


class Clocks(NamedTuple):
    """The clocks that the append time of a record is held against."""

    now: int
    """The worker's."""
    ledger: int
    """The latest time of the partition's records."""
    broker: int
    """The broker's, as far as it is known."""

    def agreed(self, appended: int) -> int:
        """Give the time of a record that the broker appended at ``appended``."""
        return min(appended, self.now + AHEAD_MS)

    def fresh(self, sent: int, appended: int) -> bool:
        """Tell whether a sender with a right clock may have dated a record so.

        What is older than the ledger's time less SKEW_MS is not: its replay window may be gone.
        """
        oldest = min(appended, max(self.now + AHEAD_MS, self.ledger)) - SKEW_MS
        return oldest <= sent <= max(appended, self.now) + SKEW_MS

    def deadline(self, appended: int, timeout_ms: int) -> int:
        """Give the end of the time that the sender allows, by the broker's clock: a worker that is behind must not
        have its requests run too late. Where the broker was set back, the ledger's time goes on from where it is."""
        return appended + timeout_ms + max(0, self.ledger - self.broker)
