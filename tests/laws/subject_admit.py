"""ADMIT as a subject: batches of requests and reports through ``decide_batch``, and what follows from each record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hypothesis import strategies as st

from pipeline.admit import emissions as dispatch
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import decide_batch
from pipeline.events import emission, messages
from pipeline.events.codec import decode, decode_log, encode
from pipeline.events.ids import request_id
from pipeline.events.messages import Completion
from pipeline.events.reasons import REASONS
from pipeline.events.records import Decision, Facts, LogRecord, Outcome
from pipeline.events.wire import InferenceBody
from tests.laws.subject import Cuts, Run, Written
from tests.laws.test_admit_laws import CONTROL, START, TENANTS, attacks, requests

BODY = InferenceBody("glossary", 10, b"sealed")
RANK = {"report": 0, "wait": 1, "ask": 2}
"""The order in which one batch is decided."""
NEXT = {"": {"admit", "deny"}, "admit": {"finished", "failed", "withheld", "expired"}}


@dataclass(frozen=True)
class Item:
    """One input with its place and time, which stay when others are left out."""

    kind: str
    tenant: str
    offset: int
    time: int
    fields: dict[str, Any]


reports = st.fixed_dictionaries(
    {
        "nth": st.integers(0, 30),
        "used": st.integers(0, 40),
        "result": st.sampled_from(("finished", "failed", "withheld")),
    }
)
steps = st.lists(st.one_of(requests, attacks, reports, st.just({"wait": 40_000})), min_size=1, max_size=30)


def placed(drawn: list[dict[str, Any]]) -> list[Item]:
    found: list[Item] = []
    asked: list[Item] = []
    now = START
    for offset, step in enumerate(drawn):
        if "wait" in step:
            now += step["wait"]
            found.append(Item("wait", "", offset, now, {}))
        elif "pause" in step:
            now += step["pause"]
            rest = {name: value for name, value in step.items() if name != "pause"}
            found.append(Item("ask", step["key"].partition("-")[0], offset, now, rest))
            asked.append(found[-1])
        elif asked:
            about = asked[step["nth"] % len(asked)]
            found.append(Item("report", about.tenant or TENANTS[0], offset, now, {**step, "about": about.offset}))
    return found


def batches(inputs: Sequence[Item], cuts: Cuts) -> Iterator[list[Item]]:
    """The merged sequence in batches that are decided in its order."""
    batch: list[Item] = []
    for at, item in enumerate(inputs):
        backwards = batch and (RANK[item.kind] < RANK[batch[-1].kind] or item.kind == batch[-1].kind == "wait")
        if batch and (at in cuts or backwards):
            yield batch
            batch = []
        batch.append(item)
    yield batch


class AdmitSubject:
    name = "admit"
    writes: ClassVar[dict[str, Any]] = {
        "decisions": LogRecord,
        "work": messages.Work,
        "findings": messages.FindingEvent,
        "responses": messages.Response,
        "dead_letters": messages.DeadLetter,
    }

    def inputs(self) -> st.SearchStrategy[list[Item]]:
        return steps.map(placed)

    def tenant(self, item: Item) -> str:
        return item.tenant

    def run(self, inputs: Sequence[Item], cuts: Cuts) -> Run:
        ledger, written, now = Ledger(), list[Written](), START
        for batch in batches(inputs, cuts):
            intakes = [Intake(facts(item), BODY) for item in batch if item.kind == "ask"]
            told = [Raw(i.offset, i.time, report(i), ()) for i in batch if i.kind == "report"]
            now = max([now, *(i.time for i in batch if i.kind == "wait")])
            step = decide_batch(ledger, CONTROL, 0, told, intakes, now, drained=True)
            ledger.commit()
            assert (step.intakes, step.reports, step.unreadable) == (len(intakes), len(told), 0)
            by_offset = {intake.facts.offset: intake for intake in intakes}
            for record in step.records:
                written += follow(record, by_offset)
        return Run(written, ledger.dump())

    def fold(self, inputs: Sequence[Item], run: Run) -> bytes:
        ledger = Ledger()
        for record in log(run):
            ledger.apply(record)
        return ledger.dump()

    def due(self, inputs: Sequence[Item]) -> Counter[Any]:
        return Counter(request_id("g1", 0, item.offset) for item in inputs if item.kind == "ask")

    def answers(self, run: Run) -> Counter[Any]:
        return Counter(record.request for record in log(run) if isinstance(record, Decision))

    def essence(self, run: Run) -> Sequence[Written]:
        return run.written

    def exact(self, run: Run) -> Any:
        return run.written, run.state

    def check_life(self, inputs: Sequence[Item], run: Run) -> None:
        states: dict[str, str] = {}
        for record in log(run):
            if isinstance(record, Decision | Outcome):
                after = record.verdict if isinstance(record, Decision) else record.result
                if isinstance(record, Decision):
                    assert bool(record.reasons) == (after == "deny")
                    assert REASONS.keys() >= set(record.reasons)
                assert after in NEXT[states.get(record.request, "")]
                states[record.request] = after
        left = {request for request, state in states.items() if state == "admit"}
        assert left == set(Ledger.load(run.state).open)
        work = [decode(messages.Work, w.value).request for w in run.written if w.topic == "work"]
        assert Counter(work) == Counter({r for r, state in states.items() if state != "deny"})


def facts(item: Item) -> Facts:
    return Facts(
        offset=item.offset,
        time=item.time,
        kind="inference",
        client_request=f"r{item.offset}",
        model="glossary",
        max_tokens=10,
        deadline=item.time + 30_000,
        **item.fields,
    )


def report(item: Item) -> bytes:
    request, fields = request_id("g1", 0, item.fields["about"]), item.fields
    return encode(
        Completion(request, item.tenant, item.tenant, fields["result"], "w", "a", input_tokens=fields["used"])
    )


def follow(record: LogRecord, intakes: dict[int, Intake]) -> Iterator[Written]:
    """The record and everything that admit sends because of it."""
    value = encode(record)
    assert decode_log(value) == record
    yield Written("decisions", getattr(record, "tenant", ""), value)
    sent: list[emission.Emission] = []
    if isinstance(record, Decision):
        sent = dispatch.after_decision(record, 0, CONTROL, intakes[record.facts.offset])
        if record.facts.fault == "malformed":
            sent.append(dispatch.dead_letter(Raw(record.facts.offset, record.facts.time, b"?", ()), 0, "malformed"))
    elif isinstance(record, Outcome):
        sent = dispatch.after_outcome(record, 4)
    for sending in sent:
        yield Written(sending.topic, getattr(record, "tenant", ""), sending.value)


def log(run: Run) -> list[LogRecord]:
    return [decode_log(w.value) for w in run.written if w.topic == "decisions"]
