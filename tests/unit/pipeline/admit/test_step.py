"""ADMIT fills one Kafka batch at most, waits for completions before it refuses, and passes over what it cannot read."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from detectors.base import Finding
from pipeline.admit import step as steps
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.step import BLOCKED, ENDED, AdmitStage
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Completion, DeadLetter, Response, Work
from pipeline.events.records import Decision, Facts
from pipeline.events.wire import InferenceBody
from pipeline.stage import InputBatch
from tests.laws.test_admit_laws import CONTROL, START
from tests.tickets import TICKETS, ticketed

BODY = InferenceBody("glossary", 10, b"sealed")


def asked(offset: int, tokens: int = 1, fault: str = "") -> Intake:
    facts = Facts(offset, START, "inference", fault, "acme-key", f"r{offset}", "s", offset + 1, model="glossary")
    raw = (Raw(offset, START, b"?", ()),) if fault == "malformed" else ()
    return Intake(_with(facts, max_tokens=10, input_bound=tokens, deadline=START + 30_000), BODY, unread=raw)


def _with(facts: Facts, **fields: int) -> Facts:
    return Facts(**{name: getattr(facts, name) for name in facts.__struct_fields__} | fields)


def ended(offset: int) -> Raw:
    return Raw(offset, START, encode(ticketed(Completion(f"g1-0-{offset}", "acme", "acme", "finished", "w", "a"))), ())


def test_records_of_decisions_come_first_one_each_and_actions_last() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    step = stage.step(stage.start(), InputBatch([asked(0), asked(1)], START))
    assert [emission.topic for emission in step.emissions] == ["decisions"] * 3 + ["work"] * 2
    assert step.values == [encode(record) for record in step.records]
    assert step.actions == step.emissions[3:]


def test_a_step_ends_where_a_batch_is_full_and_the_rest_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = AdmitStage(CONTROL, 0, TICKETS)
    expected = whole.step(whole.start(), InputBatch([asked(n) for n in range(3)], START)).values
    monkeypatch.setattr(steps, "STEP_BYTES", 1)
    stage, found = AdmitStage(CONTROL, 0, TICKETS), list[bytes]()
    ledger, waiting = stage.start(), [asked(n) for n in range(3)]
    while waiting or not found:
        step = stage.step(ledger, InputBatch(waiting, START))
        assert len(step.records) == 1
        found += step.values
        waiting = waiting[step.consumed :]
    assert found == expected


def test_a_refusal_that_a_completion_could_turn_waits_until_all_of_them_were_read() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    ledger = stage.step(stage.start(), InputBatch([asked(0, 30)], START)).state
    blocked = stage.step(ledger, InputBatch([asked(1, 30)], START, drained=False))
    assert (blocked.signals, blocked.records, blocked.consumed) == ({BLOCKED: 1}, [], 0)
    refused = stage.step(ledger, InputBatch([asked(1, 30)], START))
    (decision,) = refused.records
    assert isinstance(decision, Decision)
    assert decision.reasons == ("too_many_open",)
    ledger.rollback()
    admitted = stage.step(ledger, InputBatch([ended(0), asked(1, 30)], START, drained=False))
    assert (admitted.reports, admitted.consumed, admitted.signals) == (1, 2, {})


def test_bytes_that_are_no_report_are_rejected_and_an_unknown_one_says_nothing() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    step = stage.step(stage.start(), InputBatch([Raw(4, START, b"{", ()), ended(9)], START))
    assert [(rejection.topic, rejection.offset) for rejection in step.rejections] == [("completions", 4)]
    assert (step.reports, step.consumed, len(step.records)) == (2, 2, 1)


def test_a_completion_that_ends_nothing_is_counted_and_leaves_a_dead_letter() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    ledger = stage.step(stage.start(), InputBatch([asked(0)], START)).state
    ledger.commit()
    before = ledger.dump()
    bare = Completion("g1-0-0", "acme", "acme", "finished", "w", "a")
    forged = [bare, ticketed(msgspec.structs.replace(bare, input_tokens=-1_000_000))]
    step = stage.step(ledger, InputBatch([Raw(n, START, encode(one), ()) for n, one in enumerate(forged)], START))
    assert [rejection.reason for rejection in step.rejections] == ["ticket", "counts"]
    letters = [decode(DeadLetter, emission.value) for emission in step.actions]
    assert [(one.topic, one.offset, one.reason) for one in letters] == [
        ("completions", 0, "ticket"),
        ("completions", 1, "counts"),
    ]
    assert (step.records, step.reports, ledger.dump()) == ([], 2, before)
    ledger.commit()
    assert len(stage.step(ledger, InputBatch([ended(0)], START)).records) == 1
    assert stage.step(ledger, InputBatch([ended(0)], START)).signals == {ENDED: 1}


def test_a_flood_of_completions_that_end_nothing_leaves_a_dead_letter_for_each_run_of_a_reason() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    ledger = stage.step(stage.start(), InputBatch([asked(0)], START)).state
    ledger.commit()
    bare = encode(Completion("g1-0-0", "acme", "acme", "finished", "w", "a"))
    flood = [*(Raw(n, START, b"{%d" % n, ()) for n in range(5_000)), *(Raw(n, START, bare, ()) for n in (5_000, 5_002))]
    step = stage.step(ledger, InputBatch(flood, START))
    letters = [decode(DeadLetter, emission.value) for emission in step.actions]
    assert [(one.first, one.offset, one.reason) for one in letters] == [
        (0, 4_999, "malformed"),
        (-1, 5_000, "ticket"),
        (-1, 5_002, "ticket"),
    ]
    assert letters[0].digest == hashlib.sha256(b"".join(raw.value for raw in flood[:5_000])).digest()
    assert (len(step.rejections), step.reports, step.records) == (5_002, 5_002, [])


def test_a_request_that_cannot_be_read_is_refused_and_leaves_a_dead_letter() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    step = stage.step(stage.start(), InputBatch([asked(0, fault="malformed")], START))
    letters = [decode(DeadLetter, e.value) for e in step.actions if e.topic == "dead_letters"]
    assert [(letter.offset, letter.reason, letter.size) for letter in letters] == [(0, "malformed", 1)]


def test_work_of_a_request_that_has_ended_is_not_sent_again() -> None:
    stage = AdmitStage(CONTROL, 0, TICKETS)
    step = stage.step(stage.start(), InputBatch([asked(0)], START))
    decision = step.records[-1]
    assert stage.needs_body(step.state, decision)
    after = stage.step(step.state, InputBatch([ended(0)], START)).state
    assert not stage.needs_body(after, decision)
    assert stage.follow(after, decision) == []


def test_an_order_in_a_document_is_admitted_with_its_place_and_one_in_a_users_words_refused() -> None:
    found = (Finding("injection.score", 3, 97, 4, 20, "clean", 1),)
    stage = AdmitStage(CONTROL, 0, TICKETS)
    planted, said = (
        Intake(msgspec.structs.replace(asked(offset).facts, findings=found, documents=documents), BODY)
        for offset, documents in enumerate(((1,), ()))
    )
    step = stage.step(stage.start(), InputBatch([planted, said], START))
    decisions = [record for record in step.records if isinstance(record, Decision)]
    assert [(decision.verdict, decision.reasons) for decision in decisions] == [("admit", ()), ("deny", ("injection",))]
    (work,) = [decode(Work, emission.value) for emission in step.actions if emission.topic == "work"]
    assert work.quotes == ((1, 4, 20),)
    (refusal,) = [decode(Response, emission.value) for emission in step.actions if emission.topic == "responses"]
    assert refusal.found == "injection.score in messages[1], severity 3"
