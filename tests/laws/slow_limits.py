"""Limits worked out slowly from the whole history, in fractions; nothing of ``pipeline.admit`` is used.

A ledger that keeps a few numbers cannot know all of the history once a limit was changed, so two bounds are worked out:
what must at least be counted, or usage would be given back, and what may at most be, or callers were refused for
nothing. Where no limit is changed both are the same.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from pipeline.events.control import Limit

DAY = 86_400_000


class Span(NamedTuple):
    """From ``start`` until ``end`` (exclusive), Unix ms."""

    start: int
    end: int


class Bounds(NamedTuple):
    """So many units are counted, at least and at most."""

    least: Fraction
    most: Fraction


@dataclass(slots=True, eq=False)
class Use:
    """A request was charged with ``amount`` under a limit, and in a period where that is a budget."""

    time: int
    amount: int
    limit: Limit
    period: Span
    used: int
    """What the request came to in the end; while it is open the amount."""
    is_open: bool = True


def rate_of(limit: Limit) -> Fraction:
    """Units a ms."""
    return Fraction(limit.amount, limit.period_s * 1000)


def period_of(limit: Limit, offset: int, now: int) -> Span:
    """The period of a budget that ``now`` is in, by walking days."""
    if limit.period is None:
        length = limit.period_s * 1000
        return Span(now - now % length, now - now % length + length)
    zone = datetime.timezone(datetime.timedelta(minutes=offset))
    first = datetime.datetime.fromtimestamp(now / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    one = datetime.timedelta(days=1)
    while (limit.period == "week" and first.weekday() != 0) or (limit.period == "month" and first.day != 1):
        first -= one
    after = first + one
    while (limit.period == "week" and after.weekday() != 0) or (limit.period == "month" and after.day != 1):
        after += one
    return Span(round(first.timestamp() * 1000), round(after.timestamp() * 1000))


@dataclass(slots=True)
class SlowCell:
    """Everything that was ever charged for one scope, limit, meter and unit."""

    uses: list[Use] = field(default_factory=list)
    events: list[tuple[int, Use, bool]] = field(default_factory=list)
    """Times of charges and, True, of their ends, in the order in which they came."""
    limits: list[tuple[int, Limit, int]] = field(default_factory=list)
    """Each limit that was in force, with the offset of its plan, from a time on."""
    marks: list[tuple[int, Limit]] = field(default_factory=list)
    """Times at which cells that hold nothing may have been dropped, and the limit in force."""

    def put(self, limit: Limit, offset: int, now: int) -> None:
        if not self.limits or self.limits[-1][1:] != (limit, offset):
            self.limits.append((now, limit, offset))

    def charge(self, amount: int, now: int) -> Use:
        """Count a request under the limit in force."""
        _, limit, offset = self.limits[-1]
        period = period_of(limit, offset, now) if limit.meter == "budget" else Span(0, 0)
        use = Use(now, amount, limit, period, amount)
        self.uses.append(use)
        self.events.append((now, use, False))
        return use

    def end(self, use: Use, used: int, now: int) -> None:
        """A request ends that came to ``used``."""
        use.is_open, use.used = False, used
        self.events.append((now, use, True))

    def counted(self, now: int) -> Bounds:
        """Give what is counted at ``now`` against the limit in force."""
        _, limit, offset = self.limits[-1]
        if limit.meter == "open":
            held = Fraction(sum(use.amount for use in self.uses if use.is_open))
            return Bounds(held, held)
        if limit.meter == "rate":
            return Bounds(self._least_level(now), self._most_level(now))
        if limit.meter == "window":
            recent = [use for use in self.uses if use.time > now - limit.period_s * 1000]
            return Bounds(Fraction(sum(map(self._known, recent))), Fraction(len(recent)))
        return self._budget(limit, offset, now)

    def _known(self, use: Use) -> bool:
        """Tell whether no limit has let go of a time: neither as a later one was counted, nor at a mark."""
        at = self.uses.index(use)
        later = ((other.time, other.limit) for other in self.uses[at + 1 :])
        marked = (mark for mark in self.marks if mark[0] >= use.time)
        return all(use.time > time - limit.period_s * 1000 for time, limit in (*later, *marked))

    def mark(self, now: int) -> None:
        """Cells that hold nothing may be dropped."""
        self.marks.append((now, self.limits[-1][1]))

    def _budget(self, limit: Limit, offset: int, now: int) -> Bounds:
        period = period_of(limit, offset, now)
        own = [use for use in self.uses if use.period == period]
        if len({(limit.period, limit.period_s, offset) for _, limit, offset in self.limits}) == 1:
            exact = Fraction(sum(use.used for use in own))
            return Bounds(exact, exact)
        began = min((use.time for use in own), default=now)
        others = [u for u in self.uses if u.period != period and u.time >= period.start and u.period.end > began]
        least = sum(use.used for use in own) + sum(min(use.used, use.amount) for use in others)
        return Bounds(Fraction(least), Fraction(sum(max(use.used, use.amount) for use in self.uses)))

    def _least_level(self, now: int) -> Fraction:
        """The level had only the used part been charged, leaking with the fastest rate of each span."""
        level, last = Fraction(0), now
        for use in self.uses:
            level = max(Fraction(0), level - self._fastest(last, use.time) * (use.time - last)) if level else level
            level, last = level + use.used, use.time
        return max(Fraction(0), level - self._fastest(last, now) * (now - last))

    def _fastest(self, start: int, end: int) -> Fraction:
        """The fastest rate in force at any time from ``start`` to ``end``."""
        before = [limit for since, limit, _ in self.limits if since <= start][-1:]
        between = [limit for since, limit, _ in self.limits if start < since <= end]
        return max(map(rate_of, before + between), default=Fraction(0))

    def _most_level(self, now: int) -> Fraction:
        """The level with the lesser rate in each span, and of what is given back only what cannot have leaked yet."""
        level, last, since = Fraction(0), now, now
        before: Limit | None = None
        for time, use, ends in self.events:
            more = use.used - use.amount if ends else use.amount
            if more <= 0:
                spare = -more - rate_of(use.limit) * (time - use.time)
                if before is not None and _same(before, use.limit) and use.time >= since:
                    level = max(Fraction(0), level - max(Fraction(0), spare))
                continue
            if ends and before is not None:
                if any(last <= mark <= time for mark, _ in self.marks):
                    # a cell that was dropped as empty begins anew, under the limit that was charged
                    level = max(level, rate_of(before) * (time - last))
                    before = min(before, use.limit, key=rate_of)
                level += more
                continue
            if before is None or not _same(before, use.limit):
                since = time
            level = self._leaked(level, before, use.limit, time - last) + more
            last, before = time, use.limit
        return self._leaked(level, before, self.limits[-1][1], now - last)

    def _leaked(self, level: Fraction, before: Limit | None, limit: Limit, elapsed: int) -> Fraction:
        if before is None:
            return Fraction(0)
        left = max(Fraction(0), level - min(rate_of(before), rate_of(limit)) * elapsed)
        # a level that is converted is rounded up
        return left + (0 if _same(before, limit) else Fraction(1, limit.period_s * 1000))


def _same(one: Limit, other: Limit) -> bool:
    return (one.amount, one.period_s) == (other.amount, other.period_s)
