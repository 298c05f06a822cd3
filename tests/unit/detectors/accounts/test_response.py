"""The graded response: every cell of the table, up only in time, down when quiet, never past the ends."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from detectors.accounts.response import (
    DUTIES,
    HOLD_MS,
    QUIET_MS,
    STEPS,
    TABLE,
    AccountResponse,
    Signal,
    Step,
    respond,
    settle,
)

SIGNALS: tuple[Signal, ...] = get_args(Signal)


def test_the_table_is_whole_and_no_signal_of_a_detector_lowers_a_step() -> None:
    assert set(TABLE) == set(STEPS) == set(DUTIES) == set(get_args(Step))
    for step, row in TABLE.items():
        assert set(row) == set(SIGNALS)
        at = STEPS.index(step)
        assert all(STEPS.index(row[signal]) >= at for signal in ("suspect", "alarm", "campaign"))
        assert STEPS.index(row["quiet"]) == max(0, at - 1)
        assert (row["cleared"], row["confirmed"]) == ("observe", "block")


def test_duties_grow_with_the_step() -> None:
    rates = [DUTIES[step].rate for step in STEPS]
    assert rates == sorted(rates, reverse=True)
    assert [DUTIES[step].log_probabilities for step in STEPS] == [True, True, False, False, False]
    assert [DUTIES[step].watermark for step in STEPS] == [False, False, True, True, True]
    assert [DUTIES[step].admit for step in STEPS] == [True, True, True, True, False]


def test_alarms_climb_one_step_a_hold_and_stop_at_block() -> None:
    response, steps = AccountResponse(), []
    for number in range(6):
        response = respond(response, "alarm", number * HOLD_MS)
        steps.append(response.step)
    assert steps == ["throttle", "conceal", "review", "block", "block", "block"]


def test_a_burst_of_alarms_is_one_step() -> None:
    response = AccountResponse()
    for time in range(0, HOLD_MS, HOLD_MS // 50):
        response = respond(response, "alarm", time)
    assert response.step == "throttle"


def test_a_campaign_does_not_wait() -> None:
    assert respond(respond(AccountResponse(), "alarm", 0), "campaign", 1).step == "review"


def test_quiet_steps_down_one_at_a_time_until_observed() -> None:
    response = respond(AccountResponse(), "confirmed", 0)
    steps = [settle(response, hours * QUIET_MS).step for hours in range(6)]
    assert steps == ["block", "review", "conceal", "throttle", "observe", "observe"]
    assert settle(response, QUIET_MS - 1).step == "block"


def test_suspicion_keeps_a_step_from_coming_down() -> None:
    response = respond(AccountResponse(), "alarm", 0)
    response = respond(response, "suspect", QUIET_MS - 1)
    assert settle(response, 2 * QUIET_MS - 2).step == "throttle"
    assert settle(response, 2 * QUIET_MS - 1).step == "observe"


@given(st.lists(st.tuples(st.sampled_from(SIGNALS), st.integers(-10, 3 * QUIET_MS)), max_size=30))
def test_time_never_runs_back_and_settling_twice_is_settling_once(signals: list[tuple[Signal, int]]) -> None:
    response, clock = AccountResponse(), 0
    for signal, gap in signals:
        clock += gap
        before = response.last_signal_ms
        response = respond(response, signal, clock)
        assert response.last_signal_ms >= before
        assert settle(settle(response, clock), clock) == settle(response, clock)
