"""The seven laws of DESIGN over every stage. A law that cannot apply to a stage stands in a table with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.events.codec import encode
from pipeline.topics import BY_NAME
from tests.laws.subject import Cuts, Subject
from tests.laws.subject_admit import AdmitSubject
from tests.laws.subject_generate import GenerateSubject
from tests.laws.subject_notify import NotifySubject
from tests.laws.subject_seal import SealSubject
from tests.laws.subject_watch import WatchSubject

SUBJECTS: tuple[Subject, ...] = (AdmitSubject(), GenerateSubject(), SealSubject(), WatchSubject(), NotifySubject())
NOT_APPLICABLE = {
    ("seal", "tenant_non_interference"): "one Merkle log holds all records of a partition in their order, whoever's "
    "they are; what may be seen of it is decided by the store's row policies",
    ("watch", "accounting"): "a finding is not answered, it counts towards windows; that it counts once however often "
    "it comes is part of its life cycle",
}
Law = Callable[[Subject, list[Any], Cuts, Cuts], None]


def accounting(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Every input is answered, once."""
    assert subject.answers(subject.run(inputs, cuts)) == subject.due(inputs)


def determinism(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """The same inputs give the same bytes."""
    assert subject.exact(subject.run(inputs, cuts)) == subject.exact(subject.run(inputs, cuts))


def live_is_folded(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """The state that a worker holds is the one its records give."""
    run = subject.run(inputs, cuts)
    assert run.state == subject.fold(inputs, run)


def split_invariance(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Where batches end, and when a worker is replaced, changes nothing."""
    whole = subject.essence(subject.run(inputs, frozenset()))
    assert subject.essence(subject.run(inputs, cuts)) == whole
    assert subject.essence(subject.run(inputs, other)) == whole


def tenant_non_interference(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """What others do changes nothing of mine."""
    mine = [item for item in inputs if subject.tenant(item) in ("acme", "")]
    together = [w for w in subject.run(inputs, frozenset()).written if w.tenant == "acme"]
    assert together == [w for w in subject.run(mine, frozenset()).written if w.tenant == "acme"]


def closed_world(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Only declared topics are written, each with records of its own type in their canonical bytes."""
    assert set(subject.writes) <= set(BY_NAME)
    for topic, _, value in subject.run(inputs, cuts).written:
        assert encode(msgspec.json.decode(value, type=subject.writes[topic])) == value


def legal_life(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Everything goes through its states in a legal order."""
    subject.check_life(inputs, subject.run(inputs, cuts))


LAWS: tuple[Law, ...] = (
    accounting,
    determinism,
    live_is_folded,
    split_invariance,
    tenant_non_interference,
    closed_world,
    legal_life,
)
APPLICABLE = [
    pytest.param(law, subject, id=f"{law.__name__}-{subject.name}")
    for law in LAWS
    for subject in SUBJECTS
    if (subject.name, law.__name__) not in NOT_APPLICABLE
]
cuts = st.frozensets(st.integers(0, 40), max_size=8)


@pytest.mark.parametrize(("law", "subject"), APPLICABLE)
def test_the_law_holds(law: Law, subject: Subject) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(subject.inputs(), cuts, cuts)
    def holds(inputs: list[Any], some: Cuts, other: Cuts) -> None:
        law(subject, inputs, some, other)

    holds()


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_drawn_inputs_reach_every_topic_of_the_stage(subject: Subject) -> None:
    """A law over runs that write nothing would say nothing."""
    seen: set[str] = set()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(subject.inputs())
    def reach(inputs: list[Any]) -> None:
        seen.update(w.topic for w in subject.run(inputs, frozenset()).written)

    reach()
    assert seen == set(subject.writes)


def test_exceptions_name_a_law_a_stage_and_a_reason() -> None:
    names = {law.__name__ for law in LAWS}
    assert len(LAWS) == 7
    for (stage, law), reason in NOT_APPLICABLE.items():
        assert stage in {subject.name for subject in SUBJECTS}
        assert law in names
        assert len(reason) > 40
