"""How long a test waits before it calls something stuck: no measure of speed, as the machine may be crowded."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

STUCK_S = 300.0


def looks() -> Iterator[int]:
    """Turns of a loop that waits for something, until STUCK_S have passed; the first at once."""
    end = time.monotonic() + STUCK_S
    return itertools.takewhile(lambda turn: not turn or time.monotonic() < end, itertools.count())
