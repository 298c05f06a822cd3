"""An account that copies the model is answered step by step, and comes back down; one that only works hard is not.

Whole histories through the stage and what follows from each record, on a clock of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise

import msgspec
import pytest

from detectors.accounts.features import RequestParameters, Trace, trace
from detectors.accounts.response import HOLD_MS, QUIET_MS
from detectors.base import Part
from pipeline.admit import accounts
from pipeline.admit import emissions as dispatch
from pipeline.admit.decide import decide
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.events.codec import decode, decode_log, encode
from pipeline.events.control import (
    AnyDocument,
    Control,
    Deployment,
    Key,
    Limit,
    Model,
    Organisation,
    Plan,
    Principal,
    Tenant,
)
from pipeline.events.messages import Completion, FindingEvent, Work
from pipeline.events.records import Decision, Facts, LogRecord, SnapshotMark
from pipeline.events.wire import InferenceBody
from pipeline.stage import InputBatch
from pipeline.topics import partition_of
from pipeline.watch import correlate as watch
from tests.tickets import TICKETS, ticketed

START = 1_790_000_000_000
MINUTE = 60_000
GAP = 2_000
BODY = InferenceBody("glossary", 10, b"sealed")
WORDS = ("dog", "river", "lamp", "violin", "comet", "bakery", "orchard", "turbine", "canyon", "letter", "harbour")
QUESTIONS = (
    "What is the capital of Mongolia?",
    "Can you fix this loop so that it does not skip the last element of the list?",
    "Write a birthday poem for my grandmother who loves gardening and strong coffee.",
    "Why does bread dough rise faster in summer than in winter?",
    "Translate 'good morning, dear neighbours' into Portuguese please.",
    "How do I remove a red wine stain from a wool carpet?",
    "Summarise the plot of Hamlet in three sentences.",
    "Which vitamins are in kale, and how much should one eat a day?",
    "My train was cancelled; draft a polite complaint to the railway company.",
    "Explain the difference between a mutex and a semaphore with a short example.",
    "我想学做红烧肉，应该准备哪些调料？",
    "请帮我写一封辞职信，语气要礼貌。",
    "为什么天空在傍晚会变成红色？",
    "Suggest five names for a small bakery near the sea.",
    "Is it safe to run a marathon with a mild cold?",
    "How long does a parcel from Berlin to Lisbon usually take?",
)
Say = Callable[[int], str]


def harvest(number: int) -> str:
    one, other = WORDS[number % 11], WORDS[number // 11 % 11]
    return f"What does a {one} share with a {other}? Explain your reasoning step by step before the final answer."


def work_hard(number: int) -> str:
    return f"{QUESTIONS[number % len(QUESTIONS)]} This is for order {number}."


def control(plan: Plan | None = None, extraction: str = "judged") -> Control:
    found, limit = Control(), Limit(id="rpm", meter="rate", amount=6000)
    documents: list[AnyDocument] = [
        Deployment(generation="g1", partitions=4),
        plan or Plan(id="big", models=("glossary",), tenant=(limit,), extraction="block"),
        Model(id="glossary", context=256),
        Organisation(id="acme"),
        Tenant(id="acme", organisation="acme", plan="big", data_key="-", hpke_public="-", hpke_private="-"),
        Principal(id="eve", tenant="acme", extraction=extraction),  # type: ignore[arg-type]
        Principal(id="bob", tenant="acme"),
        *(Key(id=name, principal=name, secret="-") for name in ("eve", "bob")),
    ]
    for version, document in enumerate(documents):
        found.apply(version, document)
    return found


@dataclass
class Partition:
    """A ledger with its log, and what left for other stages."""

    documents: Control = field(default_factory=control)
    ledger: Ledger = field(default_factory=Ledger)
    log: list[LogRecord] = field(default_factory=list)
    decided: dict[str, list[Decision]] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    events: list[FindingEvent] = field(default_factory=list)
    offset: int = 0
    reported: int = 0

    def ask(self, who: str, text: str, time: int) -> Decision:
        """One request, decided, written, run and reported."""
        seen = tuple(trace((Part("user", text),), RequestParameters(0.7, 10)))
        asked = Facts(
            self.offset,
            time,
            "inference",
            key=who,
            session=who,
            counter=self.offset + 1,
            client_request=f"r{self.offset}",
            model="glossary",
            max_tokens=10,
            input_bound=10,
            deadline=time + MINUTE,
            features=seen,
        )
        self.offset += 1
        waiting: list[Raw | Intake] = [*self._reports(), Intake(asked, BODY)]
        told = 0
        while waiting:
            step = AdmitStage(self.documents, 0, TICKETS).step(self.ledger, InputBatch(waiting, time, told=told))
            self.ledger.commit()
            told = step.told if step.ticked else told
            self.log += step.records
            waiting = waiting[step.consumed :]
        decision = step.records[-1]
        assert isinstance(decision, Decision)
        self.decided.setdefault(who, []).append(decision)
        for emission in step.actions:
            if emission.topic == "work":
                self.work[decision.request] = decode(Work, emission.value)
            elif emission.topic == "findings":
                self.events.append(decode(FindingEvent, emission.value))
        return decision

    def _reports(self) -> list[Raw]:
        """What became of the requests before."""
        waiting = list(self.ledger.open.values())
        self.reported += len(waiting)
        return [
            Raw(self.reported + n, 0, encode(ticketed(Completion(h.request, "acme", "acme", "finished", "w", "a"))), ())
            for n, h in enumerate(waiting)
        ]


def talk(partition: Partition, who: str, say: Say, count: int, start: int, gap: int) -> Iterator[Decision]:
    for number in range(count):
        yield partition.ask(who, say(number), start + number * gap)


def steps(decisions: list[Decision]) -> list[str]:
    return [step for step, _ in groupby(d.step for d in decisions)]


@pytest.fixture(scope="module")
def played() -> Partition:
    """Eve harvests for most of an hour, a request every two seconds, while Bob asks twice as much of many kinds."""
    partition = Partition()
    for number in range(1_500):
        partition.ask("eve", harvest(number), START + number * GAP)
        for part in range(2):
            partition.ask("bob", work_hard(number * 2 + part), START + number * GAP + part * 1_000)
    return partition


def test_a_campaign_is_alerted_throttled_concealed_reviewed_and_blocked(played: Partition) -> None:
    decisions = played.decided["eve"]
    assert steps(decisions) == ["observe", "throttle", "conceal", "review", "block"]
    rises = [d for d in decisions if d.findings]
    assert [d.step for d in rises] == ["throttle", "conceal", "review", "block"]
    assert all(b.facts.time - a.facts.time >= HOLD_MS for a, b in pairwise(rises))
    assert decisions.index(rises[0]) < 50
    reasons = {step: Counter(d.reasons for d in decisions if d.step == step) for step in steps(decisions)}
    assert reasons["observe"].keys() == {()}
    assert reasons["block"].keys() == {("extraction",)}
    for step, most in (("throttle", 15), ("conceal", 15), ("review", 6)):
        assert reasons[step].keys() == {(), ("throttled",)}
        minutes = Counter(d.facts.time // MINUTE for d in decisions if d.step == step and d.verdict == "admit")
        assert max(minutes.values()) <= most + -(-most // 4)
    alerts = watch.replay(played.events)
    assert {(a.rule, a.tenant) for a in alerts} == {("extraction-campaign", "acme")}
    assert alerts[0].time == rises[0].facts.time


def test_refusals_say_when_to_come_back(played: Partition) -> None:
    refused = [d for d in played.decided["eve"] if d.verdict == "deny"]
    assert all(d.retry_after_ms > 0 for d in refused)
    assert {d.limit for d in refused} == {"p:eve|throttle", "p:eve|conceal", "p:eve|review", ""}
    assert all(d.retry_after_ms <= QUIET_MS for d in refused)


def test_what_is_concealed_is_told_to_the_worker(played: Partition) -> None:
    told = {d.step: played.work[d.request].degrade for d in played.decided["eve"] if d.verdict == "admit"}
    assert told == {"observe": False, "throttle": False, "conceal": True, "review": True}
    kept = {d.step: played.work[d.request].keep for d in played.decided["eve"] if d.verdict == "admit"}
    assert (kept["throttle"], kept["review"]) == ("findings", "all")


def test_who_works_hard_beside_it_is_served(played: Partition) -> None:
    assert {(d.verdict, d.step, d.findings) for d in played.decided["bob"]} == {("admit", "observe", ())}


def test_what_is_told_to_campaigns_lies_where_the_wording_belongs(played: Partition) -> None:
    shared = [d for d in played.decided["eve"] if d.signatures]
    assert shared
    asked = msgspec.structs.replace(shared[-1], verdict="deny", reasons=("extraction",))
    sent = [e for e in dispatch.after_decision(asked, 0, played.documents, None) if e.topic == "findings"]
    by_wording = [e for e in sent if decode(FindingEvent, e.value).signature]
    assert [decode(FindingEvent, e.value).signature for e in by_wording] == list(asked.signatures)
    assert all(e.partition == partition_of(e.key, 4) for e in by_wording)


def test_each_decision_derives_again_and_a_crash_at_any_place_keeps_the_steps(played: Partition) -> None:
    folded = Ledger()
    for number, record in enumerate(played.log):
        stored = decode_log(encode(record))
        if isinstance(stored, Decision):
            assert encode(decide(folded, played.documents, 0, stored.facts)) == encode(record)
        folded.apply(stored)
        if number % 700 == 0:
            folded = Ledger.load(folded.dump())
    assert folded.dump() == played.ledger.dump()


def test_quiet_takes_the_steps_back_one_by_one(played: Partition) -> None:
    held = Partition(played.documents, Ledger.load(played.ledger.dump()), offset=played.offset)
    last = played.decided["eve"][-1].facts.time
    seen = [held.ask("eve", work_hard(n), last + n * QUIET_MS + MINUTE) for n in range(1, 5)]
    assert [d.step for d in seen] == ["review", "conceal", "throttle", "observe"]
    assert held.ledger.accounts.status("eve").traffic.count == 1


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


def test_what_is_held_of_an_account_is_about_a_kilobyte(played: Partition) -> None:
    assert {len(held) <= 1_200 for held in played.ledger.accounts.packed.values()} == {True}
