"""ADMIT as a subject: requests and reports that arrive together, and time that passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.events import lifecycle
from pipeline.events.codec import encode
from pipeline.events.ids import request_id
from pipeline.events.messages import Completion
from pipeline.events.reasons import REASONS
from pipeline.events.records import Decision, Facts, LogRecord, Outcome
from pipeline.events.wire import InferenceBody
from pipeline.stage import InputBatch
from tests.laws.subject import Cuts, Run, Subject
from tests.laws.test_admit_laws import CONTROL, START, TENANTS, attacks, requests
from tests.tickets import TICKETS, ticketed

BODY = InferenceBody("glossary", 10, b"sealed")
RANK = {"report": 0, "wait": 1, "ask": 2}
"""The order in which one batch is decided."""


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
        "result": st.sampled_from(("finished", "failed", "withheld", "cancelled")),
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


class AdmitSubject(Subject):
    def stage(self, inputs: Sequence[Item]) -> AdmitStage:
        return AdmitStage(CONTROL, 0, TICKETS)

    def inputs(self) -> st.SearchStrategy[list[Item]]:
        return steps.map(placed)

    def groups(self, inputs: Sequence[Item], cuts: Cuts) -> Iterator[Sequence[Item]]:
        """The merged sequence in batches that are decided in its order."""
        group: list[Item] = []
        for at, item in enumerate(inputs):
            backwards = group and (RANK[item.kind] < RANK[group[-1].kind] or item.kind == group[-1].kind == "wait")
            if group and (at in cuts or backwards):
                yield group
                group = []
            group.append(item)
        yield group

    def batch(self, state: Ledger, group: Sequence[Item]) -> InputBatch[Any]:
        told = [Raw(item.offset, item.time, report(item), ()) for item in group if item.kind == "report"]
        asked = [intake(item) for item in group if item.kind == "ask"]
        return InputBatch([*told, *asked], max([START, state.time, *(i.time for i in group if i.kind == "wait")]))

    def folded(self, inputs: Sequence[Item], run: Run) -> Iterable[LogRecord]:
        return run.records("decisions")

    def view(self, state: Ledger) -> bytes:
        return state.dump()

    def due(self, inputs: Sequence[Item]) -> Counter[Any]:
        return Counter(request_id("g1", 0, item.offset) for item in inputs if item.kind == "ask")

    def answers(self, run: Run) -> Counter[Any]:
        return Counter(record.request for record in run.records("decisions") if isinstance(record, Decision))

    def timed_out(self, run: Run) -> bool:
        return any(isinstance(record, Outcome) and record.result == "expired" for record in run.records("decisions"))

    def check_life(self, inputs: Sequence[Item], run: Run) -> None:
        states: dict[str, lifecycle.State] = {}
        denied: set[str] = set()
        for record in run.records("decisions"):
            if isinstance(record, Decision):
                assert bool(record.reasons) == (record.verdict == "deny")
                assert REASONS.keys() >= set(record.reasons)
                denied |= {record.request} if record.verdict == "deny" else set()
            if isinstance(record, Decision | Outcome):
                states[record.request] = lifecycle.after(states.get(record.request, "new"), record)
        assert {request for request, state in states.items() if state == "open"} == set(run.state.open)
        assert Counter(work.request for work in run.records("work")) == Counter(states.keys() - denied)


def intake(item: Item) -> Intake:
    facts = Facts(
        offset=item.offset,
        time=item.time,
        kind="inference",
        client_request=f"r{item.offset}",
        model="glossary",
        max_tokens=10,
        lane=1,
        deadline=item.time + 30_000,
        **item.fields,
    )
    unread = (Raw(item.offset, item.time, b"?", ()),) if facts.fault == "malformed" else ()
    return Intake(facts, BODY, unread=unread)


def report(item: Item) -> bytes:
    request, fields = request_id("g1", 0, item.fields["about"]), item.fields
    made = Completion(request, item.tenant, item.tenant, fields["result"], "w", "a", input_tokens=fields["used"])
    return encode(ticketed(made))
