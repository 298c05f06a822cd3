"""Who is served next, in virtual time: a step is the clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batching.fairness import INPUT_PRICE, OUTPUT_PRICE, effective_weight
from inference.bounds import MAX_WEIGHT
from tests.unit.inference.batching.test_scheduler import Run, scheduler_of


def latencies(flood: int, *, slots: int = 8, answers: int = 40) -> list[int]:
    """Steps that each request of a quiet tenant takes while another sends ``flood`` times as many, all at once."""
    run, taken = Run(slots, slots + 24), []
    number = 0
    for quiet in range(answers):
        for _ in range(flood):
            run.add(f"flood{number}", "loud", 6 + number % 9, 8 + number % 40)
            number += 1
        run.add(f"quiet{quiet}", "quiet", 8, 24)
        steps = 0
        while f"quiet{quiet}" in run.jobs:
            run.step()
            steps += 1
        taken.append(steps)
    return sorted(taken)


def test_a_flood_of_a_hundred_moves_anothers_p99_by_at_most_half() -> None:
    alone, flooded = latencies(0), latencies(100)
    assert flooded[-1] <= 1.5 * alone[-1], "the slowest of 40 is at or beyond the p99"


def price(prompt: int, answer: int) -> int:
    return INPUT_PRICE * prompt + OUTPUT_PRICE * answer


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.tuples(st.integers(1, 30), st.integers(1, 8)),
    st.tuples(st.integers(1, 30), st.integers(1, 8)),
    st.sampled_from([(100, 100), (100, 200), (50, 400)]),
)
def test_backlogged_tenants_stay_within_the_proven_bound(
    slots: int, shape_a: tuple[int, int], shape_b: tuple[int, int], weights: tuple[int, int]
) -> None:
    """Theorem 4.4 of the paper: services differ by at most 2 max(price of a prompt, price of what a batch holds)."""
    run = Run(slots, slots + 8)
    shapes, weight_of = {"a": shape_a, "b": shape_b}, dict(zip("ab", weights, strict=True))
    for number in range(150):
        for tenant, shape in shapes.items():
            run.add(f"{tenant}{number}", tenant, *shape, weight=weight_of[tenant])
    bound = 2 * slots * max(price(*shapes[tenant]) * 100 / weight_of[tenant] for tenant in shapes)
    counters = run.scheduler.counters
    for _ in range(80):
        run.step()
        if not {"a", "b"} <= set(run.scheduler._waiting._queues):
            break
        assert abs(counters["a"] - counters["b"]) / 1_000_000 <= bound


def test_service_follows_the_weights() -> None:
    run = Run(4, 12)
    for number in range(200):
        run.add(f"small{number}", "small", 4, 4, weight=100)
        run.add(f"big{number}", "big", 4, 4, weight=300)
    for _ in range(160):
        run.step()
    assert run.served["big"] / run.served["small"] == pytest.approx(3.0, rel=0.15)


def test_an_idle_tenant_hoards_no_credit() -> None:
    run = Run(2, 8)
    for number in range(60):
        run.add(f"busy{number}", "busy", 4, 8)
    for _ in range(100):
        run.step()
    for number in range(60):
        run.add(f"back{number}", "back", 4, 8)
    run.served.clear()
    for _ in range(60):
        run.step()
    assert run.served["busy"] >= 0.8 * run.served["back"]


def test_risk_lowers_the_weight_but_starves_nobody() -> None:
    assert [effective_weight(100, risk) for risk in (0.0, 0.5, 1.0)] == [100, 60, 20]
    assert effective_weight(1, 1.0) == 1
    assert effective_weight(MAX_WEIGHT, 0.0) == MAX_WEIGHT


def test_where_a_request_stands_is_the_order_in_which_they_run() -> None:
    scheduler = scheduler_of(1, 4)
    for name, tenant in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("b2", "b")]:
        scheduler.add(name, tenant, [0, 0])
    told = {name: scheduler.queue_position(name) for name in ("a1", "a2", "b1", "a3", "b2")}
    order = []
    while scheduler.waiting or scheduler.running:
        (scheduled,) = scheduler.plan()
        order.append(scheduled.request_id)
        scheduler.remove(scheduled.request_id)
    assert [told[name] for name in order] == [0, 1, 2, 3, 4]
    assert scheduler.queue_position("a1") is None


def test_a_running_request_waits_for_nobody() -> None:
    scheduler = scheduler_of(1, 4)
    scheduler.add("r", "t", [0])
    scheduler.plan()
    assert scheduler.queue_position("r") is None


def test_want_of_blocks_puts_back_the_newest_of_the_most_served() -> None:
    run = Run(3, 30, blocks=9)
    run.add("old", "greedy", 10, 20)
    run.add("new", "greedy", 8, 20)
    run.step()
    run.add("other", "modest", 2, 20)
    order = []
    while run.jobs:
        before = set(run.jobs)
        run.step()
        order += sorted(before - set(run.jobs))
    assert run.scheduler.totals.preempted > 0
    assert order == ["old", "other", "new"] or order == ["other", "old", "new"]


def test_memory_that_ran_out_halves_the_batch_and_it_grows_back() -> None:
    run = Run(8, 32)
    for number in range(8):
        run.add(f"r{number}", "t", 4, 50)
    run.step()
    assert run.scheduler.shrink()
    assert (run.scheduler.running, run.scheduler.slots, run.scheduler.budget) == (4, 4, 16)
    while run.scheduler.shrink():
        pass
    assert (run.scheduler.running, run.scheduler.slots, run.scheduler.budget) == (1, 1, 1)
    for _ in range(8):
        run.scheduler.grow_back()
    assert (run.scheduler.slots, run.scheduler.budget) == (8, 32)
    while run.jobs:
        run.step()
