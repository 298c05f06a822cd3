"""A session's rising counter is kept in a window, so that no record counts twice, as in RFC 4303, 3.4.3."""

from __future__ import annotations

import msgspec

REPLAY_WINDOW = 60
"""Counters below the highest by this much or more count as used."""


class ReplayWindow(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Replay window of one key and client session: bit ``i`` of ``seen`` is counter ``highest - i``."""

    highest: int
    seen: int
    time: int

    def fresh(self, counter: int) -> bool:
        """Tell whether the counter was not used before."""
        behind = self.highest - counter
        return behind < 0 or (behind < REPLAY_WINDOW and not self.seen >> behind & 1)

    def with_counter(self, counter: int, time: int) -> ReplayWindow:
        """Give the window with the counter used at ``time``."""
        behind = self.highest - counter
        if behind >= 0:
            # an older counter counts as used anyway; a bit for it would let one header ask for any amount of memory
            bit = 1 << behind if behind < REPLAY_WINDOW else 0
            return ReplayWindow(self.highest, self.seen | bit, time)
        mask = (1 << REPLAY_WINDOW) - 1
        return ReplayWindow(counter, (self.seen << min(-behind, REPLAY_WINDOW) | 1) & mask, time)
