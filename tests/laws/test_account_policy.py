"""Plan, analyst and memory say how far an account that copies the model is answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from detectors.accounts.features import Trace
from pipeline.admit import accounts
from pipeline.admit.decide import decide
from pipeline.admit.intake import Intake
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.events.control import Plan
from pipeline.events.records import Decision, Facts, SnapshotMark
from pipeline.stage import InputBatch
from pipeline.watch import correlate as watch
from tests.laws.account_partition import BODY, GAP, START, Partition, control, harvest, steps, work_hard
from tests.tickets import TICKETS

Say = Callable[[int], str]


def talk(partition: Partition, who: str, say: Say, count: int, start: int, gap: int) -> Iterator[Decision]:
    for number in range(count):
        yield partition.ask(who, say(number), start + number * gap)


def test_a_lost_race_leaves_accounts_as_they_were() -> None:
    partition = Partition()
    list(talk(partition, "eve", harvest, 40, START, GAP))
    before = partition.ledger.dump()
    lost = Partition(partition.documents, partition.ledger, offset=partition.offset)
    asked = [msgspec.structs.replace(d.facts, offset=40 + n) for n, d in enumerate(partition.decided["eve"])]
    step = AdmitStage(lost.documents, 0, TICKETS).step(lost.ledger, InputBatch([Intake(f, BODY) for f in asked], START))
    assert step.consumed == len(asked)
    lost.ledger.rollback()
    assert lost.ledger.dump() == before
    # what was remembered of the lost race says nothing now
    assert partition.ask("eve", harvest(40), START + 40 * GAP).step == "throttle"
    again = Ledger()
    for record in partition.log:
        again.apply(record)
    assert again.dump() == partition.ledger.dump()


@pytest.mark.parametrize(
    ("farthest", "reached"), [("observe", ["observe"]), ("conceal", ["observe", "throttle", "conceal"])]
)
def test_the_plan_says_how_far_it_goes_and_the_record_what_it_spared(farthest: str, reached: list[str]) -> None:
    plan = Plan(id="big", models=("glossary",), extraction=farthest)  # type: ignore[arg-type]
    partition = Partition(control(plan))
    found = list(talk(partition, "eve", harvest, 1_500, START, GAP))
    assert steps(found) == reached
    assert {d.shadowed for d in found} == {"", "extraction"}
    assert not any(d.reasons == ("extraction",) for d in found)
    assert len(watch.replay(partition.events)) >= 2


def test_a_plan_in_shadow_refuses_nothing() -> None:
    plan = Plan(id="big", models=("glossary",), shadow=True, extraction="block")
    found = list(talk(Partition(control(plan)), "eve", harvest, 1_500, START, GAP))
    assert {(d.verdict, d.step) for d in found} == {("admit", "observe")}
    assert found[-1].shadowed == "extraction"


def test_an_analyst_has_the_last_word() -> None:
    cleared = list(talk(Partition(control(None, "cleared")), "eve", harvest, 60, START, 60_000))
    assert {(d.verdict, d.step, d.shadowed) for d in cleared} == {("admit", "observe", "")}
    (first,) = talk(Partition(control(None, "confirmed")), "eve", work_hard, 1, START, 1)
    assert (first.reasons, first.step, first.retry_after_ms) == (("extraction",), "block", 0)


def test_one_question_over_and_over_and_equal_parameters_are_no_attack() -> None:
    found = list(talk(Partition(), "eve", lambda _: "What is water?", 400, START, 2_000))
    assert {(d.verdict, d.step) for d in found} == {("admit", "observe")}


def test_a_text_that_nobody_read_and_a_trace_of_another_form_move_no_account() -> None:
    ledger = Ledger()
    for features in ((), (7,), tuple(range(len(Trace._fields) + 1))):
        facts = Facts(ledger.position.next_request, START, "inference", key="eve", model="glossary", features=features)
        decision = decide(ledger, control(), 0, msgspec.structs.replace(facts, deadline=START + 1, input_bound=1))
        assert decision.verdict == "admit"
        ledger.apply(decision)
    assert not ledger.accounts.packed


def test_the_least_recent_accounts_go_at_a_mark_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_ACCOUNTS", 1)
    partition = Partition()
    partition.ask("eve", "What is a lamp?", START)
    partition.ask("bob", "What is a river?", START + 1)
    assert partition.ledger.accounts.packed.keys() == {"eve", "bob"}
    partition.ledger.begin()
    partition.ledger.apply(SnapshotMark(START + 2, 0, b"", 0, 0))
    assert partition.ledger.accounts.packed.keys() == {"bob"}
    partition.ledger.rollback()
    assert partition.ledger.accounts.packed.keys() == {"eve", "bob"}
