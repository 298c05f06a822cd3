"""A limit whose amount or period is changed goes on with what was counted, and gives nothing of it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit.cells import Cells
from pipeline.admit.quota import Denial, ceiling, remaining, settle, weigh
from pipeline.events.control import Limit
from tests.unit.pipeline.admit.charging import START, put, take, tokens


def test_what_leaked_is_not_given_back_once_more() -> None:
    """Eleven runs that took a minute each, and used nothing, are no eleven thousand tokens for one millisecond."""
    limit = [("t", Limit(id="tpm", meter="rate", unit="tokens", amount=1000))]
    cells, reservations = Cells(), []
    for minute in range(11):
        taken = START + minute * 60_000
        charges = take(cells, limit, tokens(1000), taken)
        assert not isinstance(charges, Denial)
        reservations.append((charges, taken))
    now, admitted = START + 11 * 60_000, 0
    for charges, taken in reservations:
        put(cells, settle(charges, tokens(0), taken, charged=False, estimated=False), now)
        admitted += not isinstance(take(cells, limit, tokens(1000), now), Denial)
    assert admitted == 1


@pytest.mark.parametrize("amount", [500, 2000])
def test_a_changed_amount_gives_nothing_back(amount: int) -> None:
    for meter in ("rate", "budget", "open"):
        limit = Limit(id="x", meter=meter, unit="tokens", amount=1000, period_s=86_400)
        cells = Cells()
        take(cells, [("t", limit)], tokens(900), START)
        changed = ceiling("t", limit.model_copy(update={"amount": amount}))
        [left] = remaining(cells, [changed], START)
        assert left.remaining == max(0, amount - 900)
        refused = weigh(cells, [changed], tokens(left.remaining + 1), START)
        assert isinstance(refused, Denial)
        again = ceiling("t", limit)
        assert remaining(cells, [again], START)[0].remaining == 100


def test_a_changed_amount_leaks_with_the_lesser_since_the_last_charge() -> None:
    limit = Limit(id="x", meter="rate", unit="tokens", amount=600, burst=1000)
    cells = Cells()
    take(cells, [("t", limit)], tokens(1000), START)
    for amount, leaked in ((6000, 600), (60, 60)):
        changed = ceiling("t", limit.model_copy(update={"amount": amount}))
        assert remaining(cells, [changed], START + 60_000)[0].remaining == leaked


def test_what_was_taken_before_a_change_is_not_given_back_to_a_rate() -> None:
    """How much of it leaked under the limits between is not known."""
    limit = Limit(id="x", meter="rate", unit="tokens", amount=60, burst=200)
    cells = Cells()
    charges = take(cells, [("t", limit)], tokens(60), START)
    assert not isinstance(charges, Denial)
    for pause, amount in ((1, 6000), (500, 6000), (501, 60)):
        take(cells, [("t", limit.model_copy(update={"amount": amount}))], tokens(60), START + pause)
    before = dict(cells.rates)
    put(cells, settle(charges, tokens(0), START, charged=False, estimated=False), START + 502)
    assert cells.rates == before


def test_usage_above_an_estimate_does_not_leak_under_a_limit_that_is_no_longer_in_force() -> None:
    limit = Limit(id="x", meter="rate", unit="tokens", amount=60)
    cells = Cells()
    charges = take(cells, [("t", limit)], tokens(60), START)
    assert not isinstance(charges, Denial)
    put(cells, settle(charges, tokens(70), START, charged=True, estimated=True), START + 60_000)
    slower = ceiling("t", limit.model_copy(update={"amount": 1, "burst": 100}))
    assert remaining(cells, [slower], START + 60_000)[0].remaining == 100 - 70 + 1


def test_a_changed_period_converts_the_level_rounded_up() -> None:
    limit = Limit(id="x", meter="rate", unit="tokens", amount=7, burst=100)
    cells = Cells()
    take(cells, [("t", limit)], tokens(50), START)
    changed = limit.model_copy(update={"period_s": 7})
    take(cells, [("t", changed)], tokens(1), START + 1)
    level = cells.rates["t|x|rate|tokens"]
    assert (level.quantity, level.period_ms, level.since) == (7, 7000, START + 1)
    # 50 units but 7 in a minute for 1 ms, the slower of both
    assert level.level == 51 * 7000 - 7 * 7000 // 60_000


@given(st.integers(1, 2**36 - 1), st.integers(1, 366 * 86400), st.integers(0, 10**9))
def test_a_wait_under_a_changed_rate_is_the_shortest_that_helps(amount: int, period_s: int, pause: int) -> None:
    limit = Limit(id="x", meter="rate", unit="tokens", amount=600, burst=1000)
    cells = Cells()
    take(cells, [("t", limit)], tokens(1000), START)
    changed = ceiling("t", Limit(id="x", meter="rate", unit="tokens", amount=amount, period_s=period_s, burst=500))
    refused = weigh(cells, [changed], tokens(400), START + pause)
    if isinstance(refused, Denial):
        after = START + pause + refused.retry_after_ms
        assert isinstance(weigh(cells, [changed], tokens(400), after - 1), Denial)
        assert not isinstance(weigh(cells, [changed], tokens(400), after), Denial)


def test_a_refund_belongs_to_the_period_that_was_charged() -> None:
    limit = Limit(id="x", meter="budget", unit="tokens", amount=1000, period="day")
    cells, evening = Cells(), START - START % 86_400_000 + 86_399_000
    charges = take(cells, [("t", limit)], tokens(900), evening)
    assert not isinstance(charges, Denial)
    take(cells, [("t", limit)], tokens(600), evening + 2_000)
    put(cells, settle(charges, tokens(0), evening, charged=False, estimated=False), evening + 3_000)
    assert remaining(cells, [ceiling("t", limit)], evening + 3_000)[0].remaining == 400


def test_a_budget_of_another_period_begins_with_what_is_known_to_be_used() -> None:
    day = Limit(id="x", meter="budget", unit="tokens", amount=1000, period="day")
    month = day.model_copy(update={"period": "month"})
    cells, noon = Cells(), START - START % 86_400_000 + 43_200_000
    charges = take(cells, [("t", day)], tokens(700), noon)
    assert not isinstance(charges, Denial)

    def left(limit: Limit, now: int) -> int:
        return remaining(cells, [ceiling("t", limit)], now)[0].remaining

    assert (left(day, noon), left(month, noon)) == (300, 300)
    take(cells, [("t", month)], tokens(100), noon + 1)
    assert (left(day, noon + 1), left(month, noon + 1)) == (200, 200)
    put(cells, settle(charges, tokens(0), noon, charged=False, estimated=False), noon + 2)
    assert (left(day, noon + 2), left(month, noon + 2)) == (900, 900)
    tomorrow = noon + 86_400_000
    assert (left(day, tomorrow), left(month, tomorrow)) == (1000, 900)
    take(cells, [("t", day)], tokens(50), tomorrow)
    assert (left(day, tomorrow), left(month, tomorrow)) == (950, 850)


def test_what_is_given_back_to_a_day_that_no_month_has_counted_frees_nothing_of_the_month() -> None:
    day = Limit(id="x", meter="budget", unit="tokens", amount=1000, period="day")
    month = day.model_copy(update={"period": "month"})
    cells, evening = Cells(), START - START % 86_400_000 + 86_399_000
    charges = take(cells, [("t", day)], tokens(1000), evening)
    assert not isinstance(charges, Denial)
    take(cells, [("t", day)], tokens(900), evening + 2_000)
    take(cells, [("t", month)], tokens(50), evening + 3_000)
    put(cells, settle(charges, tokens(0), evening, charged=False, estimated=False), evening + 4_000)
    assert remaining(cells, [ceiling("t", month)], evening + 4_000)[0].remaining == 50


def test_a_day_that_is_over_still_counts_in_its_month() -> None:
    day = Limit(id="x", meter="budget", unit="tokens", amount=1000, period="day")
    cells, noon = Cells(), START - START % 86_400_000 + 43_200_000
    take(cells, [("t", day)], tokens(700), noon)
    month = ceiling("t", day.model_copy(update={"period": "month"}))
    assert remaining(cells, [month], noon + 86_400_000)[0].remaining == 300


def test_a_window_that_was_shortened_remembers_while_the_longer_one_would() -> None:
    hour = Limit(id="x", meter="window", amount=5, period_s=3600)
    minute = hour.model_copy(update={"period_s": 60})
    cells = Cells()
    for _ in range(5):
        take(cells, [("t", hour)], tokens(1), START)
    assert not isinstance(take(cells, [("t", minute)], tokens(1), START + 120_000), Denial)
    refused = weigh(cells, [ceiling("t", hour)], tokens(1), START + 180_000)
    assert refused == Denial("rate_limited", "t|x", 3_420_000)


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 6), st.integers(1, 120)), max_size=60))
def test_windows_that_change_count_what_is_within_their_period(walk: list[tuple[int, int, int]]) -> None:
    cells, now = Cells(), START
    admitted: list[tuple[int, int]] = []
    for pause, amount, period_s in walk:
        now += pause
        limit = Limit(id="w", meter="window", amount=amount, period_s=period_s)
        # what no limit has let go of since it was counted
        known = [t for n, (t, _) in enumerate(admitted) if all(t > since - p * 1000 for since, p in admitted[n + 1 :])]
        recent = sum(t > now - period_s * 1000 for t in known)
        weighed = take(cells, [("t", limit)], tokens(0), now)
        assert isinstance(weighed, Denial) or recent < amount
        if not isinstance(weighed, Denial):
            admitted.append((now, period_s))
