"""Cells of decider 6 go on as cells of today, and no refund that comes later frees what others used."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.admit.decider6.charge import Charge6
from pipeline.admit.decider6.quota import Cells6
from pipeline.admit.journal import UndoJournal
from pipeline.admit.quota import ceiling, remaining
from pipeline.admit.upgrade_cells import converted_cells, converted_charge
from pipeline.events.control import Limit

DAY, BLOCK = 86_400_000, 9 * 86_400_000
START = 1_790_000_000_000 - 1_790_000_000_000 % BLOCK
"""The first day of a block of nine."""


@pytest.mark.parametrize(("period_s", "left"), [(86_400, 50), (777_600, 950)])
def test_a_reservation_that_the_running_block_never_counted_frees_nothing_of_it(period_s: int, left: int) -> None:
    """The limit was one of a day on the first, and is one of nine days with 950 used on the second."""
    name, now = "t:a|b|budget|tokens", START + DAY + 2_000
    cells = converted_cells(Cells6({f"{name}|1000/777600": ((now // BLOCK) << 36) + 950}), now)
    open_one = Charge6(f"{name}|1000/{period_s}", "budget", "tokens", 900, 1000, period_s * 1000)
    charge = converted_charge(open_one, START + DAY - 1_000)
    cells.charge(msgspec.structs.replace(charge, amount=-900), now, UndoJournal())
    limit = ceiling("t:a", Limit(id="b", meter="budget", unit="tokens", amount=1000, period_s=777_600))
    assert remaining(cells, [limit], now)[0].remaining == left
