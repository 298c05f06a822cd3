"""A partition of admit on which accounts ask question after question."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from detectors.accounts.features import RequestParameters, trace
from detectors.base import Part
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.events.codec import decode, encode
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
from pipeline.events.records import Decision, Facts, LogRecord
from pipeline.events.wire import InferenceBody
from pipeline.stage import InputBatch
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
        Tenant(
            id="acme", organisation="acme", plan="big", data_key="-", hpke_public="-", hpke_private="-", calibrated=1
        ),
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


def steps(decisions: list[Decision]) -> list[str]:
    return [step for step, _ in groupby(d.step for d in decisions)]
