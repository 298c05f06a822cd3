"""Cells of decider 6 become cells of today. Their names held amount and period, so one limit may have several.

Nothing that was used is given back: of several cells of one limit the sum is taken, also where their amounts differed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from pipeline.admit import periods
from pipeline.admit.cells import BudgetPeriod, BudgetUse, Cells, RateLevel, SlidingLog
from pipeline.admit.decider6.charge import Charge6
from pipeline.admit.decider6.quota import Cells6
from pipeline.events.records import Charge

_SHIFT = 36
_USED = (1 << _SHIFT) - 1


class OldCell(NamedTuple):
    """A cell was named after these parameters and holds ``number``, or ``times``."""

    amount: int
    period_ms: int
    number: int = 0
    times: tuple[int, ...] = ()


def converted_cells(before: Cells6, now: int) -> Cells:
    """Convert all cells at ``now``, the time of their ledger."""
    cells = Cells()
    grouped: dict[str, list[OldCell]] = defaultdict(list)
    for name, number in before.numbers.items():
        limit, amount, period_ms = _parsed(name)
        grouped[limit].append(OldCell(amount, period_ms, number))
    for name, times in before.times.items():
        limit, amount, period_ms = _parsed(name)
        grouped[limit].append(OldCell(amount, period_ms, times=tuple(times)))
    tables: dict[str, tuple[dict[str, object], Callable[[list[OldCell], int], object]]] = {
        "rate": (cells.rates, _rate),  # type: ignore[dict-item]
        "window": (cells.windows, _window),  # type: ignore[dict-item]
        "budget": (cells.budgets, _budget),  # type: ignore[dict-item]
        "open": (cells.reserved, _reserved),  # type: ignore[dict-item]
    }
    for limit, old in grouped.items():
        table, convert = tables[limit.split("|")[2]]
        state = convert(old, now)
        if state:
            table[limit] = state
    return cells


def converted_charge(before: Charge6, taken: int) -> Charge:
    """Convert the charge of a reservation that was made at ``taken``."""
    start, end = periods.block_at(taken, before.period_ms) if before.meter == "budget" else (0, 0)
    name = _parsed(before.cell)[0]
    return Charge(name, before.meter, before.unit, before.amount, before.quantity, before.period_ms, start, end)


def _parsed(cell: str) -> tuple[str, int, int]:
    """Give the name of today, the amount and the period in ms."""
    name, _, parameters = cell.rpartition("|")
    amount, _, period_s = parameters.partition("/")
    return name, int(amount), int(period_s) * 1000


def _rate(old: list[OldCell], now: int) -> RateLevel | None:
    """Levels that have not leaked yet are added up; the bucket goes on with the slowest of their rates."""
    levels = [(cell, cell.number - now * cell.amount) for cell in old if cell.number > now * cell.amount]
    if not levels:
        return None
    slowest = min((cell for cell, _ in levels), key=lambda cell: Fraction(cell.amount, cell.period_ms))
    level = sum(-(-level * slowest.period_ms // cell.period_ms) for cell, level in levels)
    whole, part = divmod(level, slowest.period_ms)
    # what open reservations give back is known to leak evenly only in a bucket that was never changed
    since = 0 if len(old) == 1 else now
    return RateLevel(whole, part, now, since, slowest.amount, slowest.period_ms)


def _window(old: list[OldCell], now: int) -> SlidingLog | None:
    times = sorted(time for cell in old for time in cell.times if time > now - cell.period_ms)
    return SlidingLog(max(cell.period_ms for cell in old if cell.times), times) if times else None


def _budget(old: list[OldCell], now: int) -> BudgetUse | None:
    """Each block that still runs begins with what was used in all of them."""
    running = [cell for cell in old if cell.number >> _SHIFT == now // cell.period_ms and cell.number & _USED]
    if not running:
        return None
    used = sum(cell.number & _USED for cell in running)
    blocks = sorted({periods.block_at(now, cell.period_ms) for cell in running})
    return BudgetUse(now, tuple(BudgetPeriod(*block, used, now) for block in blocks))


def _reserved(old: list[OldCell], _: int) -> int:
    return sum(cell.number for cell in old)
