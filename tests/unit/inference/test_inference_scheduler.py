"""Which tokens a step computes, whatever the order of arrivals and departures."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.scheduler import INPUT_WEIGHT, OUTPUT_WEIGHT, QueueFull, Scheduler


@dataclass
class Job:
    tenant: str
    prompt: int
    wanted: int
    fed: int = 0
    drawn: int = 0


class Run:
    """Drives a scheduler as an engine does and checks every plan."""

    def __init__(self, slots: int, budget: int, max_waiting: int = 1000) -> None:
        self.scheduler = Scheduler(slots=slots, budget=budget, max_waiting=max_waiting)
        self.slots, self.budget = slots, budget
        self.jobs: dict[str, Job] = {}
        self.held: dict[str, int] = {}
        self.served: dict[str, int] = {}

    def add(self, name: str, tenant: str, prompt: int, wanted: int) -> None:
        self.scheduler.add(name, tenant, prompt)
        self.jobs[name] = Job(tenant, prompt, wanted)

    def remove(self, name: str) -> None:
        del self.jobs[name]
        assert self.scheduler.remove(name) == self.held.pop(name, None)

    def step(self) -> None:
        feeds = self.scheduler.plan()
        assert len({feed.slot for feed in feeds}) == len(feeds) <= self.slots
        assert len({feed.request_id for feed in feeds}) == len(feeds)
        assert sum(feed.count for feed in feeds) <= self.budget
        assert self.scheduler.running == len(feeds) == min(self.slots, len(self.jobs))
        for feed in feeds:
            job = self.jobs[feed.request_id]
            assert 0 <= feed.slot < self.slots
            assert self.held.setdefault(feed.request_id, feed.slot) == feed.slot
            assert (feed.start, feed.count >= 1) == (job.fed, True)
            job.fed += feed.count
            assert job.fed <= job.prompt + job.drawn
            assert feed.last == (job.fed == job.prompt + job.drawn)
        assert len(set(self.held.values())) == len(self.held)
        for feed in feeds:
            job = self.jobs[feed.request_id]
            self.scheduler.fed(feed, drawn=feed.last)
            job.drawn += feed.last
            if feed.last:
                self.served[job.tenant] = self.served.get(job.tenant, 0) + 1
            if job.drawn == job.wanted:
                self.remove(feed.request_id)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 40), st.integers(1, 6)),
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("remove"), st.integers(0, 10)),
    ),
    max_size=60,
)


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 4), st.integers(0, 12), OPERATIONS)
def test_every_plan_holds_and_every_request_gets_through(slots: int, more: int, operations: list) -> None:
    run = Run(slots, slots + more)
    for number, (kind, *values) in enumerate(operations):
        if kind == "add":
            run.add(f"r{number}", *values)
        elif kind == "remove" and run.jobs:
            run.remove(list(run.jobs)[values[0] % len(run.jobs)])
        elif kind == "step":
            for _ in range(values[0]):
                run.step()
    # Every step serves each running request at least one token, so this many steps are enough.
    bound = sum(job.prompt + job.wanted for job in run.jobs.values())
    for _ in range(bound):
        run.step()
    assert not run.jobs
    assert (run.scheduler.running, run.scheduler.waiting) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 30), st.integers(1, 8), st.integers(1, 30), st.integers(1, 8))
def test_backlogged_tenants_stay_within_a_bound_of_each_other(
    slots: int, prompt_a: int, answer_a: int, prompt_b: int, answer_b: int
) -> None:
    """The bound of the virtual token counter paper: what one tenant can hold in all slots at once."""
    run = Run(slots, slots + 8)
    shapes = {"a": (prompt_a, answer_a), "b": (prompt_b, answer_b)}
    for number in range(100):
        for tenant, shape in shapes.items():
            run.add(f"{tenant}{number}", tenant, *shape)
    bound = slots * max(INPUT_WEIGHT * prompt + OUTPUT_WEIGHT * answer for prompt, answer in shapes.values())
    for _ in range(100):
        run.step()
        if {job.tenant for name, job in run.jobs.items() if name not in run.held} != {"a", "b"}:
            break
        assert abs(run.scheduler.counter("a") - run.scheduler.counter("b")) <= bound


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
    # One answer of the flood ends before a slot is free, then the late one takes its own time.
    assert steps <= 10


def test_a_returning_tenant_is_lifted_to_the_least_served_active_one() -> None:
    run = Run(1, 4)
    run.add("first", "idle", 1, 1)
    run.step()
    assert run.scheduler.counter("idle") == 0, "nobody is active, so the counters start anew"
    for number in range(10):
        run.add(f"busy{number}", "busy", 2, 2)
    for _ in range(9):
        run.step()
    served = run.scheduler.counter("busy")
    assert served > 0
    run.add("back", "idle", 1, 1)
    assert run.scheduler.counter("idle") == served


def test_a_tenant_cannot_shed_its_debt_by_idling_for_a_moment() -> None:
    scheduler = Scheduler(slots=1, budget=64, max_waiting=10)
    scheduler.add("other", "light", 1)
    scheduler.plan()
    scheduler.add("big", "heavy", 50)
    before = scheduler.counter("heavy")
    scheduler.remove("other")
    scheduler.add("other2", "light", 1)
    scheduler.plan()
    debt = scheduler.counter("heavy")
    assert debt - before == 50
    scheduler.remove("big")
    scheduler.add("big2", "heavy", 1)
    assert scheduler.counter("heavy") == debt


def test_tokens_read_and_written_are_priced_apart() -> None:
    run = Run(1, 4)
    run.add("r", "t", 5, 4)
    for _ in range(4):
        run.step()
    assert run.scheduler.counter("t") == 5 * INPUT_WEIGHT + 3 * OUTPUT_WEIGHT


def test_tenants_that_left_are_forgotten() -> None:
    scheduler = Scheduler(slots=1, budget=4, max_waiting=10)
    scheduler.add("stays", "z", 1)
    for number in range(1000):
        scheduler.add(f"r{number}", f"tenant{number}", 1)
        scheduler.remove(f"r{number}")
    assert len(scheduler._counters) <= 2


def test_the_least_served_tenant_reads_its_prompt_first() -> None:
    scheduler = Scheduler(slots=2, budget=12, max_waiting=10)
    scheduler.add("long", "big", 40)
    scheduler.add("short", "small", 8)
    counts = {feed.request_id: feed.count for feed in scheduler.plan()}
    assert counts == {"short": 8, "long": 4}


def test_the_queue_is_bounded_and_an_id_is_here_once() -> None:
    scheduler = Scheduler(slots=1, budget=1, max_waiting=1)
    scheduler.add("a", "t", 1)
    with pytest.raises(KeyError):
        scheduler.add("a", "t", 1)
    scheduler.add("b", "t", 1)
    with pytest.raises(QueueFull):
        scheduler.add("c", "t", 1)
    scheduler.plan()
    with pytest.raises(QueueFull):
        scheduler.add("c", "t", 1)
    scheduler.remove("b")
    scheduler.add("c", "t", 1)
    assert scheduler.waiting == 1


@pytest.mark.parametrize(("slots", "budget", "waiting"), [(0, 1, 1), (4, 3, 1), (1, 1, -1)])
def test_impossible_sizes_are_refused(slots: int, budget: int, waiting: int) -> None:
    with pytest.raises(ValueError, match="expected slots"):
        Scheduler(slots=slots, budget=budget, max_waiting=waiting)
