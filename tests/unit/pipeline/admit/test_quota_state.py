"""A gateway that waits is told what its decision left: each limit as of that decision, in work or in the refusal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit.intake import Intake
from pipeline.admit.ledger import Ledger
from pipeline.admit.quota_state import quota_state
from pipeline.admit.step import AdmitStage, AdmitStep
from pipeline.events.limits import LimitState, QuotaState
from pipeline.events.messages import Response, Work
from pipeline.events.records import Decision, Facts
from pipeline.stage import InputBatch
from tests.laws.subject_admit import BODY
from tests.laws.test_admit_laws import CONTROL, START
from tests.tickets import TICKETS

LEVELS = ("t:acme|rpm|rate|requests", "t:acme|day|budget|tokens", "p:acme-1|minute|window|requests")
OPEN = "p:acme-1|open|open|tokens"
DAY_MS = 86_400_000


def asked(offset: int, time: int = START, **fields: Any) -> Intake:
    facts = Facts(
        **{
            "offset": offset,
            "time": time,
            "kind": "inference",
            "key": "acme-key",
            "client_request": f"acme-1:r{offset}",
            "lane": 2,
            "model": "glossary",
            "max_tokens": 10,
            "input_bound": 5,
            "deadline": time + 30_000,
            **fields,
        }
    )
    return Intake(facts, BODY)


def decided(*intakes: Intake) -> AdmitStep:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    return stage.step(stage.start(), InputBatch(intakes, START, drained=True))


def told(step: AdmitStep) -> list[QuotaState | None]:
    kinds: dict[str, Any] = {"work": Work, "responses": Response}
    records = [msgspec.json.decode(e.value, type=kinds[e.topic]) for e in step.actions if e.topic in kinds]
    return [record.quota for record in records]


def limits(quota: QuotaState | None) -> dict[str, LimitState]:
    assert quota is not None
    return {state.name: state for state in quota.limits}


def test_each_decision_of_a_batch_tells_what_it_left_itself() -> None:
    first, second = told(decided(asked(0), asked(1, START + 2_000)))
    assert first is not None
    assert second is not None
    assert (first.time, second.time) == (START, START + 2_000)
    left = [{name: state.remaining for name, state in limits(quota).items()} for quota in (first, second)]
    assert left[0] == {LEVELS[0]: 2, LEVELS[1]: 585, LEVELS[2]: 3, OPEN: 25}
    assert left[1] == {LEVELS[0]: 1, LEVELS[1]: 570, LEVELS[2]: 2, OPEN: 10}


def test_a_limit_says_when_it_is_whole_again() -> None:
    _, quota = told(decided(asked(0), asked(1, START + 2_000)))
    resets = {name: state.reset_ms for name, state in limits(quota).items()}
    # six a minute: each takes ten seconds, of which two are over
    assert resets[LEVELS[0]] == 18_000
    assert resets[LEVELS[1]] == DAY_MS - (START + 2_000) % DAY_MS
    assert resets[LEVELS[2]] == 60_000
    assert resets[OPEN] == -1
    assert {name: state.amount for name, state in limits(quota).items()} == {
        LEVELS[0]: 6,
        LEVELS[1]: 600,
        LEVELS[2]: 4,
        OPEN: 40,
    }


def test_a_refusal_tells_the_limit_that_refused_and_all_others() -> None:
    step = decided(*(asked(offset, input_bound=0, max_tokens=1) for offset in range(4)))
    assert step.records[-1].reasons == ("rate_limited",)  # type: ignore[union-attr]
    refused = limits(told(step)[-1])
    assert refused[LEVELS[0]] == LimitState(LEVELS[0], 6, 0, 30_000)
    assert refused[LEVELS[2]].remaining == 1


def test_the_capacity_of_a_partition_is_nobodys_to_know() -> None:
    [quota] = told(decided(asked(0)))
    assert all(name.startswith(("t:acme|", "p:acme-1|")) for name in limits(quota))


@pytest.mark.parametrize("fields", [{"lane": -1}, {"fault": "unsigned"}, {"key": "nobody"}])
def test_nothing_is_told_where_no_gateway_waits_or_the_caller_is_not_proven(fields: dict[str, Any]) -> None:
    assert set(told(decided(asked(0, **fields)))) <= {None}


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 20)), min_size=1, max_size=12))
def test_a_limit_is_whole_at_its_reset_and_not_before(drawn: list[tuple[int, int]]) -> None:
    stage, ledger, time = AdmitStage(CONTROL, 0, TICKETS), Ledger(), START
    for offset, (pause, bound) in enumerate(drawn):
        time += pause
        step = stage.step(ledger, InputBatch([asked(offset, time, input_bound=bound)], time, drained=True, ticks=False))
        ledger.commit()
    decision = step.records[-1]
    assert isinstance(decision, Decision)

    def left_at(state: Ledger, moment: int) -> dict[str, LimitState]:
        facts = msgspec.structs.replace(decision.facts, time=moment)
        return limits(quota_state(state, CONTROL, msgspec.structs.replace(decision, facts=facts)))

    unused = left_at(Ledger(), time)
    for name, state in left_at(ledger, time).items():
        if state.reset_ms <= 0:
            assert state.reset_ms < 0 or state.remaining == unused[name].remaining
            continue
        assert left_at(ledger, time + state.reset_ms)[name].remaining == unused[name].remaining
        assert left_at(ledger, time + state.reset_ms - 1)[name].remaining < unused[name].remaining
