"""Budgets are counted by calendar periods at a fixed offset from UTC. Pure arithmetic over Unix ms."""

from __future__ import annotations

import datetime
from functools import lru_cache
from typing import Literal, NamedTuple

DAY_MS = 86_400_000
_EPOCH = datetime.date(1970, 1, 1).toordinal()
_MONDAY = 3
"""Days that 1 January 1970, a Thursday, is behind a Monday."""
KINDS: dict[int, Literal["day", "week", "month"]] = {86_400: "day", 604_800: "week", 2_592_000: "month"}
"""Lengths in seconds that mean a calendar period."""


class Period(NamedTuple):
    """A span of time, from ``start`` until just before ``end``."""

    start: int
    end: int


def day_at(now: int, offset_ms: int) -> Period:
    """Give the day that ``now`` is in, from midnight to midnight."""
    start = now - (now + offset_ms) % DAY_MS
    return Period(start, start + DAY_MS)


def week_at(now: int, offset_ms: int) -> Period:
    """Give the week that ``now`` is in, from Monday on."""
    start = now - (now + offset_ms + _MONDAY * DAY_MS) % (7 * DAY_MS)
    return Period(start, start + 7 * DAY_MS)


def month_at(now: int, offset_ms: int) -> Period:
    """Give the month that ``now`` is in, from its first day on."""
    first, after = _month((now + offset_ms) // DAY_MS)
    return Period(first * DAY_MS - offset_ms, after * DAY_MS - offset_ms)


def block_at(now: int, length_ms: int) -> Period:
    """Give the block that ``now`` is in, of those that follow each other since 1970."""
    start = now - now % length_ms
    return Period(start, start + length_ms)


@lru_cache(maxsize=64)
def _month(day: int) -> tuple[int, int]:
    """Give the first day of the month that a day is in, and of the next, counted from 1970."""
    date = datetime.date.fromordinal(_EPOCH + day).replace(day=1)
    after = (date + datetime.timedelta(days=31)).replace(day=1)
    return date.toordinal() - _EPOCH, after.toordinal() - _EPOCH
