"""Quota arithmetic against slow reference models that share none of its representation."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit.cells import Cells
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota import Denial, amounts_of, ceiling, remaining, settle, weigh
from pipeline.events.control import Limit
from pipeline.events.records import Unit
from tests.unit.pipeline.admit.charging import START, put, take, tokens

steps = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 12)), min_size=1, max_size=80)


@given(steps, st.integers(1, 20), st.integers(1, 120), st.integers(1, 20))
def test_rate_equals_a_token_bucket_in_fractions(
    walk: list[tuple[int, int]], amount: int, period_s: int, burst: int
) -> None:
    limit = Limit(id="r", meter="rate", unit="tokens", amount=amount, period_s=period_s, burst=burst)
    cells, now, level = Cells(), START, Fraction(burst)
    for pause, cost in walk:
        now += pause
        level = min(Fraction(burst), level + Fraction(pause * amount, period_s * 1000))
        admitted = not isinstance(take(cells, [("t", limit)], tokens(cost), now), Denial)
        assert admitted == (level >= cost)
        if admitted:
            level -= cost


@given(steps, st.integers(1, 20), st.integers(1, 60), st.sampled_from(["rate", "budget"]))
def test_the_wait_is_the_shortest_that_helps_and_none_where_none_does(
    walk: list[tuple[int, int]], amount: int, period_s: int, meter: Literal["rate", "budget"]
) -> None:
    limit = Limit(id="r", meter=meter, unit="tokens", amount=amount, period_s=period_s)
    cells, now = Cells(), START
    for pause, cost in walk:
        now += pause
        weighed = take(cells, [("t", limit)], tokens(cost), now)
        if isinstance(weighed, Denial):
            assert (weighed.retry_after_ms == 0) == (cost > amount)
            if cost <= amount:
                early = weigh(cells, [ceiling("t", limit)], tokens(cost), now + weighed.retry_after_ms - 1)
                assert isinstance(early, Denial)
                assert not isinstance(
                    weigh(cells, [ceiling("t", limit)], tokens(cost), now + weighed.retry_after_ms), Denial
                )


def test_more_than_may_ever_be_open_at_once_is_not_told_to_wait() -> None:
    limit = ceiling("t", Limit(id="o", meter="open", unit="tokens", amount=10))
    assert weigh(Cells(reserved={limit.cell: 5}), [limit], tokens(6), START) == Denial("too_many_open", "t|o", 1000)
    assert weigh(Cells(), [limit], tokens(11), START) == Denial("too_many_open", "t|o", 0)


@given(steps, st.integers(1, 20), st.integers(1, 120))
def test_no_window_ever_holds_more_than_its_ceiling(walk: list[tuple[int, int]], amount: int, period_s: int) -> None:
    limit = Limit(id="w", meter="window", amount=amount, period_s=period_s)
    cells, now = Cells(), START
    admitted: list[int] = []
    for pause, _ in walk:
        now += pause
        recent = sum(1 for t in admitted if t > now - period_s * 1000)
        weighed = take(cells, [("t", limit)], tokens(0), now)
        assert isinstance(weighed, Denial) == (recent >= amount)
        if isinstance(weighed, Denial):
            early = weigh(cells, [ceiling("t", limit)], tokens(0), now + weighed.retry_after_ms - 1)
            assert isinstance(early, Denial)
            assert not isinstance(weigh(cells, [ceiling("t", limit)], tokens(0), now + weighed.retry_after_ms), Denial)
        else:
            admitted.append(now)


@given(steps, st.integers(1, 60))
def test_budget_starts_anew_with_each_calendar_period(walk: list[tuple[int, int]], amount: int) -> None:
    limit = Limit(id="b", meter="budget", unit="tokens", amount=amount, period_s=60)
    cells, now = Cells(), START
    used: dict[int, int] = {}
    for pause, cost in walk:
        now += pause
        window = now // 60_000
        fits = used.get(window, 0) + cost <= amount
        assert fits == (not isinstance(take(cells, [("t", limit)], tokens(cost), now), Denial))
        if fits:
            used[window] = used.get(window, 0) + cost


@given(st.integers(1, 500), st.integers(0, 600), st.booleans())
def test_settling_leaves_exactly_what_was_used(reserved: int, used: int, charged_for: bool) -> None:
    limits = [
        ("t", Limit(id="b", meter="budget", unit="tokens", amount=1000, period_s=86_400)),
        ("t", Limit(id="o", meter="open", unit="tokens", amount=1000)),
        ("t", Limit(id="c", meter="open", amount=3)),
        ("t", Limit(id="n", meter="budget", amount=10, period_s=86_400)),
    ]
    cells = Cells()
    charges = take(cells, limits, tokens(reserved), START)
    assert not isinstance(charges, Denial)
    put(cells, settle(charges, tokens(used), START, charged_for, estimated=False), START + 5)
    day, _, _, requests = (cells.budgets.get(c.cell) for c in charges)
    assert day is not None
    assert requests is not None
    assert [p.used for p in day.periods] == [min(used, reserved) if charged_for else 0]
    assert cells.reserved == {}
    assert [p.used for p in requests.periods] == [1]


def test_one_refusing_ceiling_charges_none_of_them() -> None:
    wide = Limit(id="wide", meter="budget", amount=100, period_s=60)
    narrow = Limit(id="narrow", meter="budget", amount=1, period_s=60)
    cells = Cells()
    take(cells, [("o", wide), ("t", narrow)], tokens(1), START)
    before = dict(cells.budgets)
    refused = take(cells, [("o", wide), ("t", narrow)], tokens(1), START)
    assert refused == Denial("budget_exhausted", "t|narrow", 60_000 - START % 60_000)
    assert cells.budgets == before


def test_the_free_plan_holds_ten_a_minute_fifty_an_hour_two_hundred_a_day() -> None:
    windows = ((10, 60), (50, 3600), (200, 86_400))
    free = [("t", Limit(id=f"w{period}", meter="window", amount=n, period_s=period)) for n, period in windows]
    cells = Cells()
    admitted = [
        t
        for t in range(START, START + 2 * 86_400_000, 4_000)
        if not isinstance(take(cells, free, tokens(1), t), Denial)
    ]
    for bound, period in windows:
        most = max(sum(1 for t in admitted if s <= t < s + period * 1000) for s in admitted)
        assert most == bound


@pytest.mark.parametrize(
    ("unit", "reserved", "used"),
    [("input_tokens", 30, 20), ("output_tokens", 12, 5), ("tokens", 42, 25), ("cost", 197, 101)],
)
def test_each_unit_is_reserved_and_settled_by_itself(unit: Unit, reserved: int, used: int) -> None:
    price = (2_500_000, 10_100_000)
    limit = Limit(id="x", meter="budget", unit=unit, amount=1000, period="day")
    cells = Cells()
    charges = take(cells, [("t", limit)], amounts_of(30, 12, price), START)
    assert not isinstance(charges, Denial)
    assert [charge.amount for charge in charges] == [reserved]
    put(cells, settle(charges, amounts_of(20, 5, price), START, charged=True, estimated=False), START + 9)
    assert remaining(cells, [ceiling("t", limit)], START + 9)[0].remaining == 1000 - used


def test_a_model_without_a_price_is_refused_by_a_limit_in_cost() -> None:
    limit = ceiling("t", Limit(id="x", meter="budget", unit="cost", amount=1000, period="day"))
    assert weigh(Cells(), [limit], amounts_of(1, 1, None), START) == Denial("budget_exhausted", "t|x", 0)
    assert weigh(Cells(), [limit], amounts_of(1, 1, (0, 0)), START) == ()


def test_only_an_estimate_is_charged_with_what_was_used_above_it() -> None:
    limits = [
        ("t", Limit(id="x", meter=meter, unit="tokens", amount=1000, period_s=86_400)) for meter in ("rate", "budget")
    ]
    for estimated, left in ((True, 850), (False, 900)):
        cells = Cells()
        charges = take(cells, limits, tokens(100), START)
        assert not isinstance(charges, Denial)
        put(cells, settle(charges, tokens(150), START, charged=True, estimated=estimated), START)
        assert {state.remaining for state in remaining(cells, [ceiling(*x) for x in limits], START)} == {left}


def test_the_largest_limit_fits_a_snapshot() -> None:
    limit = Limit(id="x", meter="rate", unit="tokens", amount=2**36 - 1, period_s=366 * 86400)
    ledger = Ledger()
    charges = take(ledger.cells, [("t", limit)], tokens(2**36 - 1), START)
    assert not isinstance(charges, Denial)
    assert Ledger.load(ledger.dump()).cells.rates == ledger.cells.rates
