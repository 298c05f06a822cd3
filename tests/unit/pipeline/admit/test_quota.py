"""Quota arithmetic against slow reference models that share none of its representation."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit.cells import Cells
from pipeline.admit.journal import UndoJournal
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota import Amounts, Denial, amounts_of, ceiling, remaining, settle, weigh
from pipeline.events.control import Limit
from pipeline.events.records import Charge, Unit

START = 1_790_000_000_000
steps = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 12)), min_size=1, max_size=80)


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


def test_the_largest_limit_fits_a_snapshot() -> None:
    limit = Limit(id="x", meter="rate", unit="tokens", amount=2**36 - 1, period_s=366 * 86400)
    ledger = Ledger()
    charges = take(ledger.cells, [("t", limit)], tokens(2**36 - 1), START)
    assert not isinstance(charges, Denial)
    assert Ledger.load(ledger.dump()).cells.rates == ledger.cells.rates
