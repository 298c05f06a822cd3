"""A worker knows by how far its clock is from the brokers', says so once, and knows when its own is the wrong one."""

from __future__ import annotations

import logging

import pytest

from pipeline.kafka import clock_watch
from pipeline.kafka.clock_watch import APART_MS, ClockWatch

TRUE = 1_790_000_000_000


class Clocks:
    """A machine's clock that can be set, and its monotonic clock that cannot."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 500
        self.set_by = 0
        monkeypatch.setattr(clock_watch, "now_ms", lambda: self.true + self.set_by)
        monkeypatch.setattr(clock_watch, "monotonic_ms", lambda: self.passed)

    @property
    def true(self) -> int:
        return TRUE + self.passed


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_clocks_that_agree_are_no_fault(clocks: Clocks) -> None:
    watch = ClockWatch()
    watch.acknowledged(3, clocks.true - 4, 20)
    watch.arrived(3, clocks.true - 60_000)
    assert watch.faults() == {}
    assert abs(watch.apart_ms(3)) <= 10
    clocks.passed += 3_600_000
    assert abs(watch.broker(3, 0) - clocks.true) <= 10


@pytest.mark.parametrize(("set_by", "says"), [(-61_000, "61 s ahead of"), (3_600_000, "3600 s behind")])
def test_a_difference_is_told_once_and_its_end_as_well(
    clocks: Clocks, caplog: pytest.LogCaptureFixture, set_by: int, says: str
) -> None:
    caplog.set_level(logging.INFO)
    watch = ClockWatch()
    clocks.set_by = set_by
    for _ in range(5):
        clocks.passed += 100
        watch.acknowledged(3, clocks.true, 0)
    assert says in watch.faults()[3]
    assert watch.furthest_ms == abs(set_by)
    clocks.set_by = 0
    assert watch.faults() == {}, "a clock that was set right needs no word of the broker"
    watch.acknowledged(3, clocks.true, 0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_record_that_waited_says_nothing_and_one_from_the_future_does(clocks: Clocks) -> None:
    watch = ClockWatch()
    watch.arrived(0, clocks.true - 3_600_000)
    watch.arrived(0, clocks.true)
    assert watch.faults() == {}
    watch.arrived(0, clocks.true + APART_MS + 1)
    assert list(watch.faults()) == [0]


def test_how_long_a_batch_was_on_its_way_is_allowed_for(clocks: Clocks) -> None:
    watch = ClockWatch()
    watch.acknowledged(0, clocks.true - 9_000, 10_000)
    assert watch.faults() == {}


def test_a_worker_behind_broker_and_log_knows_that_it_is_its_own_clock(clocks: Clocks) -> None:
    watch = ClockWatch()
    clocks.set_by = -60_000
    watch.arrived(0, clocks.true)
    assert not watch.behind, "the broker alone says so: it may be the broker's"
    watch.agreed(0, clocks.true - 10)
    assert watch.behind
    clocks.passed += 5_000
    clocks.set_by = -1_000
    assert not watch.behind


def test_a_broker_that_is_ahead_makes_no_worker_leave(clocks: Clocks) -> None:
    """Peers bring the log at most as far as their own clocks and five seconds."""
    watch = ClockWatch()
    watch.acknowledged(0, clocks.true + 3_600_000, 5)
    watch.agreed(0, clocks.true + APART_MS + 400)
    assert list(watch.faults()) == [0]
    assert not watch.behind


def test_a_machine_that_jumped_back_with_its_broker_stays(clocks: Clocks) -> None:
    watch = ClockWatch()
    clocks.set_by = -3_600_000
    watch.agreed(0, clocks.true)
    watch.acknowledged(0, clocks.true - 3_600_000, 5)
    assert not watch.behind
    assert watch.faults() == {}
