"""Requests are weighed against limits. All of them over the caller must hold, or nothing is charged.

What a request may use at most is reserved by its decision, in each unit that a limit counts in; its outcome settles
that to what was used. The counts themselves lie in ``pipeline.admit.cells``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, get_args

from pipeline.admit import periods
from pipeline.admit.cells import Cells
from pipeline.admit.periods import Period
from pipeline.events.control import Limit
from pipeline.events.limits import LimitState, ScopedLimit
from pipeline.events.reasons import LIMIT_REASONS
from pipeline.events.records import Charge, Meter, Unit

_MILLION = 1_000_000
_WAIT_MS = 1000
"""A caller with too much open is told to ask again after this; when a run ends is not known."""
_CALENDAR = {"day": periods.day_at, "week": periods.week_at, "month": periods.month_at}


class Denial(NamedTuple):
    """One ceiling refuses a request."""

    reason: str
    limit: str
    retry_after_ms: int
    """0 where no wait helps: the request asks for more than the limit ever gives at once."""


class Amounts(NamedTuple):
    """A request reserves or uses so much, in each of ``Unit`` in its order."""

    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost: int | None
    """None where the model has no price."""


class Ceiling(NamedTuple):
    """One limit holds over one scope; every request is weighed against it."""

    cell: str
    label: str
    meter: Meter
    unit: Unit
    nth: int
    """Of the unit among ``Amounts``."""
    amount: int
    period_ms: int
    burst: int
    calendar: str
    """The kind of a budget's period; empty for blocks of ``period_ms`` since 1970."""
    offset_ms: int
    one: Charge
    """One request costs this where requests are counted, but not in a budget."""

    def period_at(self, now: int) -> Period:
        """Give the period of a budget that ``now`` is in."""
        if self.calendar:
            return _CALENDAR[self.calendar](now, self.offset_ms)
        return periods.block_at(now, self.period_ms)


def amounts_of(input_tokens: int, output_tokens: int, price: tuple[int, int] | None) -> Amounts:
    """Give what a request comes to; ``price`` is of a million tokens each, and its cost is rounded up."""
    cost = None
    if price is not None:
        cost = -(-(input_tokens * price[0] + output_tokens * price[1]) // _MILLION)
    return Amounts(1, input_tokens + output_tokens, input_tokens, output_tokens, cost)


def ceiling(scope: str, limit: Limit, utc_offset: int = 0) -> Ceiling:
    """Make the ceiling of ``limit`` over ``scope``; ``utc_offset`` is in minutes."""
    cell = ScopedLimit(scope, limit).name
    period_ms = limit.period_s * 1000
    return Ceiling(
        cell=cell,
        label=f"{scope}|{limit.id}",
        meter=limit.meter,
        unit=limit.unit,
        nth=get_args(Unit).index(limit.unit),
        amount=limit.amount,
        period_ms=period_ms,
        burst=limit.burst or limit.amount,
        calendar=limit.period or periods.KINDS.get(limit.period_s) or "",
        offset_ms=utc_offset * 60_000,
        one=Charge(cell, limit.meter, limit.unit, 1, limit.amount, period_ms),
    )


def weigh(cells: Cells, ceilings: Iterable[Ceiling], amounts: Amounts, now: int) -> tuple[Charge, ...] | Denial:
    """Charge one request at ``now`` (ms), or name the first ceiling that refuses it."""
    charges = []
    for ceiling in ceilings:
        amount = amounts[ceiling.nth]
        if amount is None:
            return Denial(LIMIT_REASONS[ceiling.meter], ceiling.label, 0)
        if not amount:
            continue
        period = ceiling.period_at(now) if ceiling.meter == "budget" else None
        wait_ms = _wait(cells, ceiling, amount, now, period)
        if wait_ms:
            helps = amount <= _most_at_once(ceiling)
            return Denial(LIMIT_REASONS[ceiling.meter], ceiling.label, wait_ms if helps else 0)
        charges.append(_charge(ceiling, amount, period))
    return tuple(charges)


def settle(charges: Sequence[Charge], used: Amounts, taken: int, charged: bool, estimated: bool) -> tuple[Charge, ...]:
    """Give back what of a reservation was not used; requests stay counted.

    ``taken`` is when it was made (ms); ``charged`` False refunds it all. Only a reservation that was ``estimated`` is
    charged with what was used above it.
    """
    settled = []
    for charge in charges:
        if charge.meter == "open":
            spare = charge.amount
        elif charge.unit == "requests":
            spare = 0
        else:
            use = (used[_NTH[charge.unit]] or 0) if charged else 0
            spare = charge.amount - (use if estimated else min(use, charge.amount))
        if spare:
            start = taken if charge.meter == "rate" else charge.start
            settled.append(
                Charge(
                    charge.cell, charge.meter, charge.unit, -spare, charge.quantity, charge.period_ms, start, charge.end
                )
            )
    return tuple(settled)


def remaining(cells: Cells, ceilings: Iterable[Ceiling], now: int) -> tuple[LimitState, ...]:
    """Give what is left under each ceiling at ``now`` (ms)."""
    return tuple([LimitState(c.cell, c.amount, *_left(cells, c, now)) for c in ceilings])


def _charge(ceiling: Ceiling, amount: int, period: Period | None) -> Charge:
    one = ceiling.one
    if period is not None:
        start, end = period
        return Charge(one.cell, one.meter, one.unit, amount, one.quantity, end - start, start, end)
    if ceiling.nth == _REQUESTS:
        return one
    return Charge(one.cell, one.meter, one.unit, amount, one.quantity, one.period_ms)


def _left(cells: Cells, ceiling: Ceiling, now: int) -> tuple[int, int]:
    """Give the units left at ``now``, and the ms until all are; -1 where no time restores them."""
    if ceiling.meter == "rate":
        level = cells.rates.get(ceiling.cell)
        if level is None:
            return ceiling.burst, 0
        amount, period_ms = ceiling.amount, ceiling.period_ms
        held = level.drained(amount, period_ms, now)
        changed = level.quantity != amount or level.period_ms != period_ms
        reset_ms = level.wait_ms(0, amount, period_ms, now) if changed else -(-held // amount)
        return max(ceiling.burst + -held // period_ms, 0), reset_ms
    if ceiling.meter == "window":
        log = cells.windows.get(ceiling.cell)
        recent = 0 if log is None else log.recent(ceiling.period_ms, now)
        reset_ms = log.time + ceiling.period_ms - now if log is not None and recent else 0
        return max(ceiling.amount - recent, 0), reset_ms
    if ceiling.meter == "budget":
        period = ceiling.period_at(now)
        used = _used(cells, ceiling, period)
        return max(ceiling.amount - used, 0), period.end - now if used else 0
    return max(ceiling.amount - cells.reserved.get(ceiling.cell, 0), 0), -1


def _most_at_once(ceiling: Ceiling) -> int:
    return ceiling.burst if ceiling.meter == "rate" else ceiling.amount


def _wait(cells: Cells, ceiling: Ceiling, amount: int, now: int, period: Period | None) -> int:
    """Give the ms until the ceiling could hold; 0 where it holds. ``period`` is that of a budget."""
    if period is not None:
        return 0 if _used(cells, ceiling, period) + amount <= ceiling.amount else period.end - now
    if ceiling.meter == "rate":
        level = cells.rates.get(ceiling.cell)
        most = (ceiling.burst - amount) * ceiling.period_ms
        if most < 0:
            return _WAIT_MS
        return level.wait_ms(most, ceiling.amount, ceiling.period_ms, now) if level else 0
    if ceiling.meter == "window":
        log = cells.windows.get(ceiling.cell)
        if log is None or len(log.times) < ceiling.amount:
            return 0
        return max(0, log.times[-ceiling.amount] + ceiling.period_ms - now)
    return 0 if cells.reserved.get(ceiling.cell, 0) + amount <= ceiling.amount else _WAIT_MS


def _used(cells: Cells, ceiling: Ceiling, period: Period) -> int:
    use = cells.budgets.get(ceiling.cell)
    return 0 if use is None else use.used(period.start, period.end)


_REQUESTS = 0
"""Of ``requests`` among ``Amounts``."""
_NTH = {unit: nth for nth, unit in enumerate(get_args(Unit))}
