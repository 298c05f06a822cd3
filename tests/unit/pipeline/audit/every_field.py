"""A history of every kind of record, begun under decider 6, in which each field has a value of its own somewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from detectors.accounts.features import RequestParameters, trace
from detectors.base import Finding, Part
from pipeline.admit import decide, upgrade
from pipeline.admit.decider6 import decide as decide6
from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.rules import RULES
from pipeline.admit.upgrade import AnyLedger
from pipeline.audit.replay import Replay
from pipeline.events.codec import encode
from pipeline.events.control import Control, parse
from pipeline.events.messages import Completion
from pipeline.events.records import ControlMark, Decision, Facts, LogRecord, Outcome, SnapshotMark, Tick, time_of
from tests.unit.pipeline.audit.filled import filled

START = 1_790_000_000_000
WORDS = ("dog", "river", "lamp", "violin", "comet", "bakery", "orchard", "turbine", "canyon", "letter", "harbour")
INJECTION = Finding("injection.override", 3, 90, 0, 5, "clean", 0)


def documents() -> list[bytes]:
    """Stored documents: a tenant whose limits hold and one whose plan only watches."""
    rpm = {"id": "rpm", "meter": "rate", "amount": 6000}
    budget = {"id": "day", "meter": "budget", "unit": "tokens", "amount": 10**6, "period_s": 86_400}
    plans: list[dict[str, Any]] = [
        {"id": "strict", "extraction": "block", "tenant": [rpm, budget], "principal": [OPEN]},
        {"id": "watch", "shadow": True},
    ]
    keys = {"data_key": "-", "hpke_public": "-", "hpke_private": "-"}
    made: list[dict[str, Any]] = [
        {"doc": "deployment", "id": "deployment", "generation": "g1", "partitions": 4},
        *({"doc": "plan", "models": ["glossary", "elsewhere"], **plan} for plan in plans),
        {"doc": "model", "id": "glossary", "context": 256},
        {"doc": "model", "id": "elsewhere", "context": 256, "margin": 50, "price": {"input": 10**6, "output": 10**7}},
    ]
    for tenant, plan in (("acme", "strict"), ("beta", "watch")):
        made.append({"doc": "organisation", "id": tenant})
        made.append({"doc": "tenant", "id": tenant, "organisation": tenant, "plan": plan, "calibrated": 1, **keys})
        made.append({"doc": "principal", "id": f"{tenant}-1", "tenant": tenant})
        made.append({"doc": "key", "id": f"{tenant}-key", "principal": f"{tenant}-1", "secret": "-"})
    return [encode(document) for document in made]


OPEN = {"id": "open", "meter": "open", "unit": "tokens", "amount": 60}
DOCUMENTS = documents()


def control() -> Control:
    found = Control()
    for version, raw in enumerate(DOCUMENTS):
        found.apply(version, parse(raw))
    return found


def replayed(records: list[LogRecord]) -> Replay:
    """A verifier that has read the records and found no fault."""
    replay = Replay(RULES, 0, enumerate(DOCUMENTS))
    assert [fault for record in records for fault in replay.push(record, encode(record), time_of(record))] == []
    return replay


@dataclass
class Play:
    """A partition decides and is written down."""

    ledger: AnyLedger = field(default_factory=Ledger6)
    documents: Control = field(default_factory=control)
    records: list[LogRecord] = field(default_factory=list)
    offset: int = 0
    reports: int = 0

    def write(self, record: LogRecord) -> None:
        self.records.append(record)
        self.ledger = upgrade.fold(self.ledger, record, time_of(record))

    def facts(self, tenant: str = "acme", text: str = "", **fields: Any) -> Facts:
        """Facts of the next request."""
        number, self.offset = self.offset, self.offset + 1
        now = max(START + 2_000 * number, self.ledger.time)
        seen = tuple(trace((Part("user", text),), RequestParameters(0.7, 10))) if text else ()
        known = {
            "kind": "inference", "key": f"{tenant}-key", "client_request": f"r{number}", "session": "s",
            "counter": number + 1, "model": "glossary", "max_tokens": 10, "input_bound": 20,
            "deadline": now + 60_000, "features": seen,
        }  # fmt: skip
        return Facts(number, now, **{**known, **fields})

    def ask(self, tenant: str = "acme", text: str = "", **fields: Any) -> Decision:
        facts = self.facts(tenant, text, **fields)
        rules: Any = decide6 if isinstance(self.ledger, Ledger6) else decide
        made: Decision = rules.decide(self.ledger, self.documents, 0, facts)
        self.write(made)
        return made

    def completion(self, request: str, **fields: Any) -> Completion:
        """A report in which every field has a value of its own."""
        held = self.ledger.open[request]
        place = {"request": request, "organisation": held.organisation, "tenant": held.tenant}
        made: Completion = filled(Completion, **{**place, "input_tokens": 4, "output_tokens": 3, **fields})
        return made

    def outcome(self, request: str, **fields: Any) -> Outcome:
        """Settle a request; it is not written."""
        rules: Any = decide6 if isinstance(self.ledger, Ledger6) else decide
        self.reports += 1
        report = self.completion(request, **fields)
        made: Outcome = rules.outcome(self.ledger, self.reports, self.ledger.time + 1, report)
        return made

    def play(self) -> None:
        """Write every kind of record."""
        self.write(ControlMark(self.ledger.time, self.documents.version))
        self.write(self.outcome(self.ask().request, tools=(), pool=""))
        assert isinstance(self.ledger, Ledger6)
        self.write(upgrade.mark(self.ledger))
        for number in range(16):
            asked = self.ask(text=_harvest(number))
            if asked.verdict == "admit":
                self.write(self.outcome(asked.request))
        beyond = self.ask("beta", model="elsewhere")
        self.write(self.outcome(beyond.request, result="finished", input_tokens=40, output_tokens=9))
        self._refused()
        self.write(Tick(self.ledger.time + 200_000))
        for held in list(self.ledger.open.values()):
            self.write(decide.expired(self.ledger, held, self.ledger.time))  # type: ignore[arg-type]
        self.write(SnapshotMark(self.ledger.time, len(self.records), self.ledger.digest(), 1, 1))

    def _refused(self) -> None:
        """Refusals and a cancel; two requests stay open."""
        first = self.ask("beta", idempotency="once", findings=(INJECTION,), lane=2)
        self.ask("beta", idempotency="once")
        self.ask("beta", kind="cancel", target=first.facts.client_request)
        self.ask("beta")
        self.ask(input_bound=30)
        self.ask(input_bound=30)


def _harvest(number: int) -> str:
    one, two = WORDS[number % 11], WORDS[number // 11 % 11]
    return f"What does a {one} share with a {two}? Explain your reasoning step by step before the final answer."
