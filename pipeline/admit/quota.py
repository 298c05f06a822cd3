"""Limits over integer cells. Pure: a cell changes only by ``Charge`` values, and a charge says all it changes.

Meters: ``rate`` is GCRA (ITU-T I.371, virtual scheduling) with the theoretical arrival time kept in units of
1/quantity ms, so no rounding ever happens; ``window`` an exact sliding log; ``budget`` a calendar period in UTC;
``open`` what is reserved now. All ceilings along organisation → tenant → principal must hold, or nothing is charged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.events.control import Limit
from pipeline.events.reasons import LIMIT_REASONS
from pipeline.events.records import Charge

_SHIFT = 36
_USED = (1 << _SHIFT) - 1


class Denial(NamedTuple):
    reason: str
    limit: str
    retry_after_ms: int
    """0 where no wait helps: the request asks for more than the limit ever gives at once."""


class Cells:
    """The ledger's numbers: cell name → integer, and cell name → sorted times for sliding logs."""

    __slots__ = ("numbers", "times")

    def __init__(self, numbers: dict[str, int] | None = None, times: dict[str, list[int]] | None = None) -> None:
        self.numbers: dict[str, int] = numbers or {}
        self.times: dict[str, list[int]] = times or {}


class Ceiling(NamedTuple):
    """One limit over one scope, as it is asked for every request."""

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
    """What ``limit`` comes to over ``scope``."""
    cell = f"{scope}|{limit.id}|{limit.meter}|{limit.unit}|{limit.amount}/{limit.period_s}"
    period, tokens = limit.period_s * 1000, limit.unit == "tokens"
    one = Charge(cell, limit.meter, limit.unit, 1, limit.amount, period)
    burst = limit.burst or limit.amount
    return Ceiling(cell, f"{scope}|{limit.id}", limit.meter, tokens, limit.amount, period, burst, one)


def weigh(cells: Cells, ceilings: Iterable[Ceiling], tokens: int, now: int) -> tuple[Charge, ...] | Denial:
    """The charges of one request of ``tokens`` reserved tokens at ``now`` (ms), or the first ceiling that refuses."""
    charges = []
    for held in ceilings:
        amount = tokens if held.tokens else 1
        wait = _wait(cells, held, amount, now)
        if wait is not None:
            return Denial(LIMIT_REASONS[held.meter], held.label, wait if amount <= _most_at_once(held) else 0)
        one = held.one
        charges.append(
            Charge(one.cell, one.meter, one.unit, amount, one.quantity, one.period_ms) if held.tokens else one
        )
    return tuple(charges)


def settle(charges: Sequence[Charge], used_tokens: int, cells: Cells, taken: int, charged: bool) -> tuple[Charge, ...]:
    """What an outcome gives back. ``taken`` is when the reservation was made (ms); ``charged`` False refunds it all.

    Requests stay counted; a budget whose period is over keeps what it had.
    """
    back = []
    for charge in charges:
        if charge.meter == "open":
            give = charge.amount
        elif charge.unit == "tokens":
            give = charge.amount - (min(used_tokens, charge.amount) if charged else 0)
        else:
            give = 0
        if charge.meter == "budget" and cells.numbers.get(charge.cell, 0) >> _SHIFT != taken // charge.period_ms:
            give = 0
        if give:
            back.append(Charge(charge.cell, charge.meter, charge.unit, -give, charge.quantity, charge.period_ms))
    return tuple(back)


def _most_at_once(held: Ceiling) -> int:
    return held.burst if held.meter == "rate" else held.amount


def _wait(cells: Cells, held: Ceiling, amount: int, now: int) -> int | None:
    """None where the ceiling holds, else ms until it could."""
    cell, _, meter, _, most, period, burst, _ = held
    if meter == "rate":
        at = now * most
        ahead = max(cells.numbers.get(cell, 0), at) + amount * period - at - burst * period
        return None if ahead <= 0 else -(-ahead // most)
    if meter == "window":
        times = cells.times.get(cell, [])
        recent = [t for t in times if t > now - period]
        return None if len(recent) + 1 <= most else recent[-most] + period - now
    if meter == "budget":
        used = _used(cells.numbers.get(cell, 0), now // period)
        return None if used + amount <= most else period - now % period
    return None if cells.numbers.get(cell, 0) + amount <= most else 1000


def _used(packed: int, window: int) -> int:
    return packed & _USED if packed >> _SHIFT == window else 0


def charged(cells: Cells, charge: Charge, now: int) -> int:
    """The new number of a cell after ``charge`` at ``now`` (not for ``window``)."""
    held = cells.numbers.get(charge.cell, 0)
    if charge.meter == "rate":
        step = charge.amount * charge.period_ms
        return held + step if charge.amount < 0 else max(held, now * charge.quantity) + step
    if charge.meter == "budget":
        if charge.amount < 0:
            return held + charge.amount
        window = now // charge.period_ms
        return (window << _SHIFT) + _used(held, window) + charge.amount
    return held + charge.amount


def in_window(times: list[int], charge: Charge, now: int) -> list[int]:
    """The sliding log after ``charge`` at ``now``: old entries gone, this one added."""
    return [t for t in times if t > now - charge.period_ms] + [now]
