"""Which tokens a step computes, whatever the order of arrivals and departures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batching.blocks import BlockPool
from inference.batching.fairness import INPUT_PRICE, OUTPUT_PRICE, UNIT
from inference.batching.prefix import PrefixKeys
from inference.batching.scheduler import QueueFull, Scheduler


def scheduler_of(slots: int, budget: int, max_waiting: int = 10_000, blocks: int = 1000) -> Scheduler:
    pool = BlockPool(blocks, 4, PrefixKeys(bytes(32)))
    return Scheduler(slots=slots, budget=budget, max_waiting=max_waiting, pool=pool)


@dataclass
class Job:
    tenant: str
    prompt: int
    wanted: int
    tokens: list[int] = field(default_factory=list)
    computed: int = 0


class Run:
    """Drives a scheduler as an engine does and checks every plan."""

    def __init__(self, slots: int, budget: int, blocks: int = 1000) -> None:
        self.scheduler = scheduler_of(slots, budget, blocks=blocks)
        self.slots, self.budget = slots, budget
        self.jobs: dict[str, Job] = {}
        self.served: dict[str, int] = {}

    def add(self, name: str, tenant: str, prompt: int, wanted: int, weight: int = 100) -> None:
        self.jobs[name] = Job(tenant, prompt, wanted, [0] * prompt)
        self.scheduler.add(name, tenant, self.jobs[name].tokens, weight=weight)

    def remove(self, name: str) -> None:
        del self.jobs[name]
        self.scheduler.remove(name)

    def step(self) -> None:
        plan = self.scheduler.plan()
        held = [block for scheduled in plan for block in scheduled.blocks]
        assert len(set(held)) == len(held), "two requests share a block without a common prefix"
        assert len({scheduled.request_id for scheduled in plan}) == len(plan) == self.scheduler.running <= self.slots
        assert sum(scheduled.count for scheduled in plan) <= self.budget
        assert bool(plan) == bool(self.jobs)
        for scheduled in plan:
            job = self.jobs[scheduled.request_id]
            assert scheduled.start in (job.computed, 0), "goes on where it was, or begins again"
            assert scheduled.count >= 1
            assert len(scheduled.blocks) * 4 >= scheduled.start + scheduled.count
            job.computed = scheduled.start + scheduled.count
            assert job.computed <= len(job.tokens)
            assert scheduled.last == (job.computed == len(job.tokens))
        for scheduled in plan:
            job = self.jobs[scheduled.request_id]
            self.scheduler.computed(scheduled, drawn=scheduled.last)
            if scheduled.last:
                job.tokens.append(0)
                self.served[job.tenant] = self.served.get(job.tenant, 0) + 1
            if len(job.tokens) == job.prompt + job.wanted:
                self.remove(scheduled.request_id)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 40), st.integers(1, 6)),
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("remove"), st.integers(0, 10)),
    ),
    max_size=60,
)


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 4), st.integers(0, 12), st.sampled_from([12, 20, 1000]), OPERATIONS)
def test_every_plan_holds_and_every_request_gets_through(
    slots: int, more: int, blocks: int, operations: list[Any]
) -> None:
    run = Run(slots, slots + more, blocks)
    for number, (kind, *values) in enumerate(operations):
        if kind == "add":
            run.add(f"r{number}", *values)
        elif kind == "remove" and run.jobs:
            run.remove(list(run.jobs)[values[0] % len(run.jobs)])
        elif kind == "step":
            for _ in range(values[0]):
                run.step()
    # Every step serves each running request at least one token; one that is put back for want of blocks or for
    # another's part of the slots begins again, once for each token of the others at most.
    total = sum(job.prompt + job.wanted for job in run.jobs.values())
    for _ in range(total * (len(run.jobs) + 1)):
        run.step()
    assert not run.jobs
    assert (run.scheduler.running, run.scheduler.waiting) == (0, 0)


def test_a_flood_of_one_tenant_does_not_hold_up_another() -> None:
    run = Run(2, 10)
    for number in range(50):
        run.add(f"flood{number}", "loud", 4, 4)
    for _ in range(8):
        run.step()
    run.add("late", "quiet", 4, 4)
    steps = 0
    while "late" in run.jobs:
        run.step()
        steps += 1
    # It takes its part of the slots at once and then its own time: no more than alone.
    assert steps <= 5


def test_a_returning_tenant_is_lifted_to_the_least_served_active_one() -> None:
    run = Run(1, 4)
    run.add("first", "idle", 1, 1)
    run.step()
    assert run.scheduler.counters["idle"] == 0, "nobody is active, so the counters start anew"
    for number in range(10):
        run.add(f"busy{number}", "busy", 2, 2)
    for _ in range(9):
        run.step()
    served = run.scheduler.counters["busy"]
    assert served > 0
    run.add("back", "idle", 1, 1)
    assert run.scheduler.counters["idle"] == served


def test_a_tenant_cannot_shed_its_debt_by_idling_for_a_moment() -> None:
    scheduler = scheduler_of(1, 64)
    scheduler.add("other", "light", [0])
    scheduler.plan()
    scheduler.add("big", "heavy", [0] * 50)
    before = scheduler.counters["heavy"]
    scheduler.remove("other")
    scheduler.add("other2", "light", [0])
    scheduler.plan()
    debt = scheduler.counters["heavy"]
    assert debt - before == 50 * UNIT
    scheduler.remove("big")
    scheduler.add("big2", "heavy", [0])
    assert scheduler.counters["heavy"] == debt


def test_tokens_read_and_written_are_priced_apart() -> None:
    run = Run(2, 8)
    run.add("r", "t", 5, 4)
    run.add("other", "keeps the counters alive", 1, 9)
    for _ in range(4):
        run.step()
    assert "r" not in run.jobs
    run.add("again", "t", 1, 1)
    assert run.scheduler.counters["t"] == (5 * INPUT_PRICE + 4 * OUTPUT_PRICE) * UNIT


def test_tenants_that_left_are_forgotten() -> None:
    scheduler = scheduler_of(1, 4)
    scheduler.add("stays", "z", [0])
    for number in range(1000):
        scheduler.add(f"r{number}", f"tenant{number}", [0])
        scheduler.remove(f"r{number}")
    assert len(scheduler.counters._counters) <= 2


def test_the_least_served_tenant_reads_its_prompt_first() -> None:
    scheduler = scheduler_of(2, 12)
    scheduler.add("long", "big", [0] * 40)
    scheduler.add("short", "small", [0] * 8)
    counts = {scheduled.request_id: scheduled.count for scheduled in scheduler.plan()}
    assert counts == {"short": 8, "long": 4}


def test_the_queue_is_bounded_and_an_id_is_here_once() -> None:
    scheduler = scheduler_of(1, 1, 1)
    scheduler.add("a", "t", [0])
    with pytest.raises(KeyError):
        scheduler.add("a", "t", [0])
    scheduler.add("b", "t", [0])
    with pytest.raises(QueueFull):
        scheduler.add("c", "t", [0])
    scheduler.plan()
    with pytest.raises(QueueFull):
        scheduler.add("c", "t", [0])
    scheduler.remove("b")
    scheduler.add("c", "t", [0])
    assert scheduler.waiting == 1


@pytest.mark.parametrize(("slots", "budget", "waiting"), [(0, 1, 1), (4, 3, 1), (1, 1, -1)])
def test_impossible_sizes_are_refused(slots: int, budget: int, waiting: int) -> None:
    with pytest.raises(ValueError, match="expected slots"):
        scheduler_of(slots, budget, waiting)


def test_a_tenant_that_fills_the_queue_leaves_others_their_part_of_it() -> None:
    scheduler = scheduler_of(1, 1, 8)
    for number in range(9):
        scheduler.add(f"flood{number}", "loud", [0])
    with pytest.raises(QueueFull):
        scheduler.add("more", "loud", [0])
    for number in range(4):
        scheduler.add(f"quiet{number}", "quiet", [0])
    with pytest.raises(QueueFull):
        scheduler.add("quiet4", "quiet", [0])
    refused = 0
    for number in range(100):
        try:
            scheduler.add(f"one{number}", f"tenant{number}", [0])
        except QueueFull:
            refused += 1
    assert refused > 0
    assert scheduler.waiting <= 4 * 8 + 1


def test_a_tenant_whose_last_request_goes_before_counts_for_no_place() -> None:
    scheduler = scheduler_of(slots=1, budget=8)
    scheduler.add("runs", "z", [1])
    scheduler.plan()
    scheduler.add("a1", "a", [1])
    scheduler.add("b1", "b", [1] * 8)
    scheduler.add("b2", "b", [1])
    assert [scheduler.queue_position(name) for name in ("runs", "a1", "b1", "b2")] == [None, 0, 1, 2]
    assert scheduler.queue_position("nobody") is None


class Name(str):
    """A tenant's name that counts how often it is compared."""

    compared = 0
    __hash__ = str.__hash__

    def __lt__(self, other: str) -> bool:
        Name.compared += 1
        return super().__lt__(other)

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return super().__eq__(other)


def test_a_place_in_a_flood_of_many_tenants_is_found_in_few_comparisons() -> None:
    tenants = [Name(f"t{number:03}") for number in range(200)]
    scheduler = scheduler_of(slots=1, budget=8)
    for turn in range(10):
        for tenant in tenants:
            scheduler.add(f"{tenant}-{turn}", tenant, [1] * 5)
    Name.compared = 0
    assert scheduler.queue_position("t199-9") == 1999
    # 2000 turns of a heap of 200; to look at each tenant every time would take 400,000
    assert Name.compared < 100_000
