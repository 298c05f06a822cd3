"""The replay window of decider 6, which kept a bit for every counter, however old."""

from __future__ import annotations

import msgspec

from pipeline.admit.replay_window import REPLAY_WINDOW, ReplayWindow


class ReplayWindow6(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Bit ``i`` of ``seen`` is counter ``highest - i``."""

    highest: int
    seen: int
    time: int

    def fresh(self, counter: int) -> bool:
        """Tell whether the counter was not used."""
        behind = self.highest - counter
        return behind < 0 or (behind < REPLAY_WINDOW and not self.seen >> behind & 1)

    def with_counter(self, counter: int, time: int) -> ReplayWindow6:
        """Give the window with the counter used."""
        behind = self.highest - counter
        if behind >= 0:
            return ReplayWindow6(self.highest, self.seen | 1 << behind, time)
        mask = (1 << REPLAY_WINDOW) - 1
        return ReplayWindow6(counter, (self.seen << min(-behind, REPLAY_WINDOW) | 1) & mask, time)

    def converted(self) -> ReplayWindow:
        """Give the window of today."""
        return ReplayWindow(self.highest, self.seen & (1 << REPLAY_WINDOW) - 1, self.time)
