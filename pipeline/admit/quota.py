"""Limits are kept over integer cells. A cell changes only by ``Charge`` values, and a charge says all it changes.

Meters: ``rate`` is GCRA (ITU-T I.371, virtual scheduling) with the theoretical arrival time kept in units of
1/quantity ms, so no rounding ever happens; ``window`` an exact sliding log; ``budget`` a calendar period in UTC;
``open`` what is reserved now. All ceilings along organisation → tenant → principal must hold, or nothing is charged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.events.control import Limit
from pipeline.events.limits import LimitState
from pipeline.events.reasons import LIMIT_REASONS
from pipeline.events.records import Charge

_SHIFT = 36
_USED = (1 << _SHIFT) - 1


class Denial(NamedTuple):
    """One ceiling refuses a request."""

    reason: str
    limit: str
    retry_after_ms: int
    """0 where no wait helps: the request asks for more than the limit ever gives at once."""


class Cells:
    """The ledger counts in cells: an integer by cell name, and sorted times by cell name for sliding logs."""

    __slots__ = ("numbers", "times")

    def __init__(self, numbers: dict[str, int] | None = None, times: dict[str, list[int]] | None = None) -> None:
        self.numbers: dict[str, int] = {} if numbers is None else numbers
        self.times: dict[str, list[int]] = {} if times is None else times


class Ceiling(NamedTuple):
    """One limit holds over one scope; every request is weighed against it."""

    cell: str
    """A changed limit is a new limit: its parameters are part of the name."""
    label: str
    meter: str
    tokens: bool
    amount: int
    period_ms: int
    burst: int
    one: Charge
    """What one request costs where requests are counted."""


def ceiling(scope: str, limit: Limit) -> Ceiling:
    """Make the ceiling of ``limit`` over ``scope``."""
    cell = f"{scope}|{limit.id}|{limit.meter}|{limit.unit}|{limit.amount}/{limit.period_s}"
    period_ms = limit.period_s * 1000
    return Ceiling(
        cell=cell,
        label=f"{scope}|{limit.id}",
        meter=limit.meter,
        tokens=limit.unit == "tokens",
        amount=limit.amount,
        period_ms=period_ms,
        burst=limit.burst or limit.amount,
        one=Charge(cell, limit.meter, limit.unit, 1, limit.amount, period_ms),
    )


def weigh(cells: Cells, ceilings: Iterable[Ceiling], tokens: int, now: int) -> tuple[Charge, ...] | Denial:
    """Charge one request of ``tokens`` reserved tokens at ``now`` (ms), or name the first ceiling that refuses it."""
    charges = []
    for ceiling in ceilings:
        amount = tokens if ceiling.tokens else 1
        wait_ms = _wait(cells, ceiling, amount, now)
        if wait_ms is not None:
            helps = amount <= _most_at_once(ceiling)
            return Denial(LIMIT_REASONS[ceiling.meter], ceiling.label, wait_ms if helps else 0)
        one = ceiling.one
        charges.append(
            Charge(one.cell, one.meter, one.unit, amount, one.quantity, one.period_ms) if ceiling.tokens else one
        )
    return tuple(charges)


def settle(charges: Sequence[Charge], used_tokens: int, cells: Cells, taken: int, charged: bool) -> tuple[Charge, ...]:
    """An outcome gives back what was not used. ``taken`` is when the reservation was made (ms); ``charged`` False
    refunds it all.

    Requests stay counted; a budget whose period is over keeps what it had.
    """
    refunds = []
    for charge in charges:
        if charge.meter == "open":
            refund = charge.amount
        elif charge.unit == "tokens":
            refund = charge.amount - (min(used_tokens, charge.amount) if charged else 0)
        else:
            refund = 0
        if charge.meter == "budget" and cells.numbers.get(charge.cell, 0) >> _SHIFT != taken // charge.period_ms:
            refund = 0
        if refund:
            refunds.append(Charge(charge.cell, charge.meter, charge.unit, -refund, charge.quantity, charge.period_ms))
    return tuple(refunds)


def remaining(cells: Cells, ceilings: Iterable[Ceiling], now: int) -> tuple[LimitState, ...]:
    """Give what is left under each ceiling at ``now`` (ms)."""
    return tuple(LimitState(c.cell.rpartition("|")[0], c.amount, *_left(cells, c, now)) for c in ceilings)


def _left(cells: Cells, ceiling: Ceiling, now: int) -> tuple[int, int]:
    """Give the units left at ``now``, and the ms until all are; -1 where no time restores them."""
    if ceiling.meter == "rate":
        ahead = max(cells.numbers.get(ceiling.cell, 0) - now * ceiling.amount, 0)
        left = (ceiling.burst * ceiling.period_ms - ahead) // ceiling.period_ms
        return max(left, 0), -(-ahead // ceiling.amount)
    if ceiling.meter == "window":
        recent = [time for time in cells.times.get(ceiling.cell, ()) if time > now - ceiling.period_ms]
        return max(ceiling.amount - len(recent), 0), recent[-1] + ceiling.period_ms - now if recent else 0
    if ceiling.meter == "budget":
        used = _used(cells.numbers.get(ceiling.cell, 0), now // ceiling.period_ms)
        return max(ceiling.amount - used, 0), ceiling.period_ms - now % ceiling.period_ms if used else 0
    return max(ceiling.amount - cells.numbers.get(ceiling.cell, 0), 0), -1


def _most_at_once(ceiling: Ceiling) -> int:
    return ceiling.burst if ceiling.meter == "rate" else ceiling.amount


def _wait(cells: Cells, ceiling: Ceiling, amount: int, now: int) -> int | None:
    """None where the ceiling holds, else ms until it could."""
    if ceiling.meter == "rate":
        virtual_now = now * ceiling.amount
        arrival = max(cells.numbers.get(ceiling.cell, 0), virtual_now) + amount * ceiling.period_ms
        ahead = arrival - virtual_now - ceiling.burst * ceiling.period_ms
        return None if ahead <= 0 else -(-ahead // ceiling.amount)
    if ceiling.meter == "window":
        recent = [time for time in cells.times.get(ceiling.cell, ()) if time > now - ceiling.period_ms]
        return None if len(recent) + 1 <= ceiling.amount else recent[-ceiling.amount] + ceiling.period_ms - now
    if ceiling.meter == "budget":
        used = _used(cells.numbers.get(ceiling.cell, 0), now // ceiling.period_ms)
        return None if used + amount <= ceiling.amount else ceiling.period_ms - now % ceiling.period_ms
    return None if cells.numbers.get(ceiling.cell, 0) + amount <= ceiling.amount else 1000


def _used(packed: int, period: int) -> int:
    """Units used of a budget in ``period``; a cell of another period has none."""
    return packed & _USED if packed >> _SHIFT == period else 0


def charged(cells: Cells, charge: Charge, now: int) -> int:
    """Give the number of a cell after ``charge`` at ``now`` (not for ``window``)."""
    number = cells.numbers.get(charge.cell, 0)
    if charge.meter == "rate":
        step = charge.amount * charge.period_ms
        return number + step if charge.amount < 0 else max(number, now * charge.quantity) + step
    if charge.meter == "budget":
        if charge.amount < 0:
            return number + charge.amount
        period = now // charge.period_ms
        return (period << _SHIFT) + _used(number, period) + charge.amount
    return number + charge.amount


def in_window(times: list[int], charge: Charge, now: int) -> list[int]:
    """Give the sliding log after ``charge`` at ``now``: old entries gone, this one added."""
    return [time for time in times if time > now - charge.period_ms] + [now]
