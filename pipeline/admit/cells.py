"""The ledger counts in cells, one for each scope, limit, meter and unit. A cell changes only by ``Charge`` values.

No amount or period is part of a cell's name, so a changed limit goes on with what was counted, and each state says what
it is counted in. ``rate`` is a leaky bucket in integers; ``window`` an exact sliding log; ``budget`` what was used in
each period that still runs; ``open`` what is reserved now.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import msgspec

from pipeline.admit.journal import UndoJournal
from pipeline.events.limits import LONGEST_REFILL_S
from pipeline.events.records import Charge

MAX_WINDOW = 1_000
"""Times that a window keeps, unless its limit is above; so it can be raised again to as many."""
KEPT_MS = LONGEST_REFILL_S * 1000
"""A rate or window that nothing is left of is kept for so long after its last charge where its limit may have been
changed since."""
BUDGET_KEPT_MS = 366 * 86_400_000
"""A budget likewise; no period is longer."""


class RateLevel(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A bucket held ``whole`` units and ``part`` / ``period_ms`` of one at ``time``; it leaks ``quantity`` a period.

    Two numbers, as their sum over ``period_ms`` does not fit 64 bits.
    """

    whole: int
    part: int
    time: int
    """Of the last charge."""
    since: int
    """Of the first charge under this quantity and period, with no other between."""
    quantity: int
    period_ms: int

    @property
    def level(self) -> int:
        """Units times ``period_ms``."""
        return self.whole * self.period_ms + self.part

    def drained(self, quantity: int, period_ms: int, now: int) -> int:
        """Give the level at ``now`` in units times ``period_ms``.

        Where the limit was changed the bucket leaked with the lesser rate, and what is converted is rounded up, so no
        change gives usage back.
        """
        elapsed = now - self.time
        # spelled out: this is asked several times a decision, and the property costs as much as the rest
        own = max(0, self.whole * self.period_ms + self.part - self.quantity * elapsed)
        if quantity == self.quantity and period_ms == self.period_ms:
            return own
        converted = -(-self.level * period_ms // self.period_ms)
        return max(-(-own * period_ms // self.period_ms), converted - quantity * elapsed)

    def wait_ms(self, most: int, quantity: int, period_ms: int, now: int) -> int:
        """Give the ms from ``now`` until ``drained`` is at most ``most``; 0 where it is."""
        elapsed = now - self.time
        if quantity == self.quantity and period_ms == self.period_ms:
            return max(0, -((most - self.level) // quantity) - elapsed)
        converted = -(-self.level * period_ms // self.period_ms)
        own = max(0, -((most * self.period_ms // period_ms - self.level) // self.quantity) - elapsed)
        return max(own, -((most - converted) // quantity) - elapsed)

    def charged(self, charge: Charge, now: int) -> RateLevel:
        """Give the bucket after ``charge`` at ``now``.

        What is given back was taken at ``charge.start``. Some of it has leaked since, so only the rest lowers the
        level: it stays no lower than if the used part alone had ever been charged. Under a changed limit it is not
        known how much has leaked, and nothing is given back. Usage above what was reserved counts as of the last
        charge, since the limit in force may be another by now.
        """
        quantity, period_ms = charge.quantity, charge.period_ms
        same = quantity == self.quantity and period_ms == self.period_ms
        if charge.start and charge.amount > 0:
            whole, part = divmod(self.level + charge.amount * self.period_ms, self.period_ms)
            return RateLevel(whole, part, self.time, self.since, self.quantity, self.period_ms)
        if charge.amount > 0:
            since = self.since if same else now
            return _bucket(self.drained(quantity, period_ms, now) + charge.amount * period_ms, now, since, charge)
        credit = -charge.amount * period_ms - quantity * (now - charge.start)
        if credit <= 0 or not same or charge.start < self.since:
            return self
        return _bucket(max(0, self.level - credit), self.time, self.since, charge)

    def is_over(self, now: int) -> bool:
        """Tell whether all has leaked at ``now``."""
        return self.level <= self.quantity * (now - self.time)


def _bucket(level: int, time: int, since: int, charge: Charge) -> RateLevel:
    whole, part = divmod(level, charge.period_ms)
    return RateLevel(whole, part, time, since, charge.quantity, charge.period_ms)


class SlidingLog(msgspec.Struct, gc=False, array_like=True):
    """Times of requests, in order; changed in place, as copies of a long log would cost more than all else."""

    period_ms: int
    """Times are kept for so long: the longest period since the oldest of them."""
    times: list[int]

    def charge(self, charge: Charge, now: int, journal: UndoJournal) -> None:
        """Count a request at ``now``."""
        times, kept_ms = self.times, self.period_ms
        cut = self._cut(charge, now)
        removed = times[:cut]
        del times[:cut]
        if not times or times[0] > now - charge.period_ms or charge.period_ms > kept_ms:
            self.period_ms = charge.period_ms
        times.append(now)

        def undo() -> None:
            times.pop()
            times[:0] = removed
            self.period_ms = kept_ms

        journal.undo_by(undo)

    def _cut(self, charge: Charge, now: int) -> int:
        """Count the oldest times that no limit needs any more."""
        over = bisect_right(self.times, now - max(self.period_ms, charge.period_ms))
        return max(over, len(self.times) + 1 - max(charge.quantity, MAX_WINDOW))

    def recent(self, period_ms: int, now: int) -> int:
        """Count the requests within the period before ``now``."""
        return len(self.times) - bisect_right(self.times, now - period_ms)

    @property
    def time(self) -> int:
        """The time of the last charge."""
        return self.times[-1]

    def is_over(self, now: int) -> bool:
        """Tell whether no request is within the period before ``now``."""
        return self.time <= now - self.period_ms


class BudgetPeriod(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """So much was used from ``start`` until ``end`` (exclusive), as far as it was counted."""

    start: int
    end: int
    used: int
    since: int
    """When its counting began; a period of other length that was over by then is not in it."""


class BudgetUse(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Periods run side by side where a budget's period was changed; each charge counts in all that it lies in."""

    time: int
    """Of the last charge."""
    periods: tuple[BudgetPeriod, ...]

    def used(self, start: int, end: int) -> int:
        """Give what was used from ``start`` until ``end``.

        A period that nothing was counted in yet begins with the most of what others have that reach into it: as much
        may have been used since its start.
        """
        for period in self.periods:
            if period.start == start and period.end == end:
                return period.used
        if self.time < start:
            return 0
        return max((period.used for period in self.periods if period.end > start), default=0)

    def charged(self, charge: Charge, now: int) -> BudgetUse:
        """Give the use after ``charge`` at ``now``, without the periods that are over.

        What lies in a period that is over, or is given back to it, changes only the longer ones around it.
        """
        start, end, amount = charge.start, charge.end, charge.amount
        if amount < 0 or end <= now:
            counted = [p.start <= start and end <= p.end and end > p.since for p in self.periods]
            around = [_with(p, amount) if has else p for p, has in zip(self.periods, counted, strict=True)]
            return BudgetUse(self.time, tuple(around))
        used = self.used(start, end) + amount
        own = next((p for p in self.periods if p.start == start and p.end == end), None)
        since = own.since if own else now
        if own is not None and len(self.periods) == 1:
            return BudgetUse(now, (BudgetPeriod(start, end, used, since),))
        others = [p for p in self.periods if p.end > now and p is not own]
        periods = [*(_with(p, amount) for p in others), BudgetPeriod(start, end, used, since)]
        return BudgetUse(now, tuple(sorted(periods, key=lambda p: (p.start, p.end))))

    def is_over(self, now: int) -> bool:
        """Tell whether every period has ended at ``now``."""
        return all(period.end <= now for period in self.periods)


def _with(period: BudgetPeriod, amount: int) -> BudgetPeriod:
    return BudgetPeriod(period.start, period.end, max(0, period.used + amount), period.since)


class Cells:
    """Tables of cells by name, one for each meter."""

    __slots__ = ("budgets", "rates", "reserved", "windows")

    def __init__(
        self,
        rates: dict[str, RateLevel] | None = None,
        windows: dict[str, SlidingLog] | None = None,
        budgets: dict[str, BudgetUse] | None = None,
        reserved: dict[str, int] | None = None,
    ) -> None:
        self.rates: dict[str, RateLevel] = {} if rates is None else rates
        self.windows: dict[str, SlidingLog] = {} if windows is None else windows
        self.budgets: dict[str, BudgetUse] = {} if budgets is None else budgets
        self.reserved: dict[str, int] = {} if reserved is None else reserved

    def charge(self, charge: Charge, now: int, journal: UndoJournal) -> None:
        """Change the cell that ``charge`` names at ``now`` (ms)."""
        if charge.meter == "open":
            reserved = self.reserved.get(charge.cell, 0) + charge.amount
            if reserved > 0:
                journal.put(self.reserved, charge.cell, reserved)
            else:
                journal.drop(self.reserved, charge.cell)
        elif charge.meter == "window":
            log = self.windows.get(charge.cell)
            if log is None:
                journal.put(self.windows, charge.cell, SlidingLog(charge.period_ms, [now]))
            else:
                log.charge(charge, now, journal)
        elif charge.meter == "rate":
            level = self.rates.get(charge.cell)
            if level is not None:
                journal.put(self.rates, charge.cell, level.charged(charge, now))
            elif charge.amount > 0:
                journal.put(self.rates, charge.cell, _bucket(charge.amount * charge.period_ms, now, now, charge))
        else:
            use = self.budgets.get(charge.cell)
            if use is not None:
                journal.put(self.budgets, charge.cell, use.charged(charge, now))
            elif charge.amount > 0 and charge.end > now:
                first = BudgetPeriod(charge.start, charge.end, charge.amount, now)
                journal.put(self.budgets, charge.cell, BudgetUse(now, (first,)))

    def prune(self, now: int, control_time: int, journal: UndoJournal) -> Iterator[None]:
        """Drop the cells that nothing is left of, in turns.

        One that was charged before the last change of ``control`` stays for a while: its limit may be another by now,
        under which something is left.
        """

        def is_over(state: RateLevel | SlidingLog | BudgetUse) -> bool:
            kept_ms = BUDGET_KEPT_MS if isinstance(state, BudgetUse) else KEPT_MS
            return state.is_over(now) and (state.time > control_time or state.time <= now - kept_ms)

        for table in (self.rates, self.windows, self.budgets):
            yield from journal.prune(table, is_over)
