"""Charges of limits, applied to cells without a ledger."""

from __future__ import annotations

from pipeline.admit.cells import Cells
from pipeline.admit.journal import UndoJournal
from pipeline.admit.quota import Amounts, Denial, amounts_of, ceiling, weigh
from pipeline.events.control import Limit
from pipeline.events.records import Charge

START = 1_790_000_000_000


def tokens(count: int) -> Amounts:
    return amounts_of(count, 0, None)


def take(cells: Cells, limits: list[tuple[str, Limit]], amounts: Amounts, now: int) -> tuple[Charge, ...] | Denial:
    weighed = weigh(cells, [ceiling(*scoped) for scoped in limits], amounts, now)
    if not isinstance(weighed, Denial):
        put(cells, weighed, now)
    return weighed


def put(cells: Cells, charges: tuple[Charge, ...], now: int) -> None:
    for charge in charges:
        cells.charge(charge, now, UndoJournal())
