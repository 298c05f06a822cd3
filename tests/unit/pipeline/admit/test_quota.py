"""Quota arithmetic against slow reference models that share none of its representation."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit.quota import Cells, Denial, ceiling, charged, in_window, settle, weigh
from pipeline.events.control import Limit
from pipeline.events.records import Charge

START = 1_790_000_000_000
steps = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 12)), min_size=1, max_size=80)


def take(cells: Cells, limits: list[tuple[str, Limit]], tokens: int, now: int) -> tuple[Charge, ...] | Denial:
    weighed = weigh(cells, [ceiling(*scoped) for scoped in limits], tokens, now)
    if not isinstance(weighed, Denial):
        put(cells, weighed, now)
    return weighed


def put(cells: Cells, charges: tuple[Charge, ...], now: int) -> None:
    for charge in charges:
        if charge.meter == "window":
            cells.times[charge.cell] = in_window(cells.times.get(charge.cell, []), charge, now)
        else:
            cells.numbers[charge.cell] = charged(cells, charge, now)


@given(steps, st.integers(1, 20), st.integers(1, 120), st.integers(1, 20))
def test_rate_equals_a_token_bucket_in_fractions(
    walk: list[tuple[int, int]], amount: int, period_s: int, burst: int
) -> None:
    limit = Limit(id="r", meter="rate", unit="tokens", amount=amount, period_s=period_s, burst=burst)
    cells, now, level = Cells(), START, Fraction(burst)
    for pause, cost in walk:
        now += pause
        level = min(Fraction(burst), level + Fraction(pause * amount, period_s * 1000))
        admitted = not isinstance(take(cells, [("t", limit)], cost, now), Denial)
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
        weighed = take(cells, [("t", limit)], cost, now)
        if isinstance(weighed, Denial):
            assert (weighed.retry_after_ms == 0) == (cost > amount)
            if cost <= amount:
                early = weigh(cells, [ceiling("t", limit)], cost, now + weighed.retry_after_ms - 1)
                assert isinstance(early, Denial)
                assert not isinstance(weigh(cells, [ceiling("t", limit)], cost, now + weighed.retry_after_ms), Denial)


def test_more_than_may_ever_be_open_at_once_is_not_told_to_wait() -> None:
    limit = ceiling("t", Limit(id="o", meter="open", unit="tokens", amount=10))
    assert weigh(Cells({limit.cell: 5}), [limit], 6, START) == Denial("too_many_open", "t|o", 1000)
    assert weigh(Cells(), [limit], 11, START) == Denial("too_many_open", "t|o", 0)


@given(steps, st.integers(1, 20), st.integers(1, 120))
def test_no_window_ever_holds_more_than_its_ceiling(walk: list[tuple[int, int]], amount: int, period_s: int) -> None:
    limit = Limit(id="w", meter="window", amount=amount, period_s=period_s)
    cells, now = Cells(), START
    admitted: list[int] = []
    for pause, _ in walk:
        now += pause
        recent = sum(1 for t in admitted if t > now - period_s * 1000)
        weighed = take(cells, [("t", limit)], 0, now)
        assert isinstance(weighed, Denial) == (recent >= amount)
        if isinstance(weighed, Denial):
            early = weigh(cells, [ceiling("t", limit)], 0, now + weighed.retry_after_ms - 1)
            assert isinstance(early, Denial)
            assert not isinstance(weigh(cells, [ceiling("t", limit)], 0, now + weighed.retry_after_ms), Denial)
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
        assert fits == (not isinstance(take(cells, [("t", limit)], cost, now), Denial))
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
    charges = take(cells, limits, reserved, START)
    assert not isinstance(charges, Denial)
    put(cells, settle(charges, used, cells, START, charged_for), START + 5)
    tokens, open_tokens, open_requests, requests = (cells.numbers[c.cell] for c in charges)
    assert tokens & (1 << 36) - 1 == (min(used, reserved) if charged_for else 0)
    assert (open_tokens, open_requests) == (0, 0)
    assert requests & (1 << 36) - 1 == 1


def test_one_refusing_ceiling_charges_none_of_them() -> None:
    wide = Limit(id="wide", meter="budget", amount=100, period_s=60)
    narrow = Limit(id="narrow", meter="budget", amount=1, period_s=60)
    cells = Cells()
    take(cells, [("o", wide), ("t", narrow)], 1, START)
    before = dict(cells.numbers)
    refused = take(cells, [("o", wide), ("t", narrow)], 1, START)
    assert refused == Denial("budget_exhausted", "t|narrow", 60_000 - START % 60_000)
    assert cells.numbers == before


def test_the_free_plan_holds_ten_a_minute_fifty_an_hour_two_hundred_a_day() -> None:
    windows = ((10, 60), (50, 3600), (200, 86_400))
    free = [("t", Limit(id=f"w{period}", meter="window", amount=n, period_s=period)) for n, period in windows]
    cells = Cells()
    admitted = [
        t for t in range(START, START + 2 * 86_400_000, 4_000) if not isinstance(take(cells, free, 1, t), Denial)
    ]
    for bound, period in windows:
        most = max(sum(1 for t in admitted if s <= t < s + period * 1000) for s in admitted)
        assert most == bound
