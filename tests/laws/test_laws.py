"""The seven laws of DESIGN over every stage. A law that cannot apply to a stage stands in a table with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.events.codec import encode
from pipeline.topics import TOPICS
from tests.laws.subject import Cuts, Subject, Written, by_topic, play, read
from tests.laws.subject_admit import AdmitSubject
from tests.laws.subject_generate import GenerateSubject
from tests.laws.subject_notify import NotifySubject
from tests.laws.subject_seal import SealSubject
from tests.laws.subject_watch import WatchSubject

SUBJECTS: dict[str, Subject] = {
    "admit": AdmitSubject(),
    "generate": GenerateSubject(),
    "seal": SealSubject(),
    "watch": WatchSubject(),
    "notify": NotifySubject(),
}
NOT_APPLICABLE = {
    ("seal", "tenant_non_interference"): "one Merkle log holds all records of a partition in their order, whoever's "
    "they are; what may be seen of it is decided by the store's row policies",
    ("watch", "accounting"): "a finding is not answered, it counts towards windows; that it counts once however often "
    "it comes is part of its life cycle",
    (
        "generate",
        "live_is_folded",
    ): "nothing outlives a run: one that is lost is run again; that its chunks are "
    "the text of its completion is part of its life cycle",
}
OWN_TOPICS = {
    "admit": {"snapshots"},
    "generate": {"access"},
}
"""Topics that a process writes beside its stage: the ledger as its history stores it, acts on the model registry."""
Law = Callable[[Subject, list[Any], Cuts, Cuts], None]


def accounting(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Every input is answered, once."""
    assert subject.answers(play(subject, inputs, cuts)) == subject.due(inputs)


def determinism(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """The same inputs give the same bytes."""
    assert subject.exact(play(subject, inputs, cuts)) == subject.exact(play(subject, inputs, cuts))


def live_is_folded(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """The state that a worker holds is the one its records give."""
    run, stage = play(subject, inputs, cuts), subject.stage(inputs)
    assert subject.view(run.state) == subject.view(stage.fold(stage.start(), subject.folded(inputs, run)))


def split_invariance(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Where batches end, and when a worker is replaced, changes nothing."""
    whole = subject.essence(play(subject, inputs, frozenset()))
    assert subject.essence(play(subject, inputs, cuts)) == whole
    assert subject.essence(play(subject, inputs, other)) == whole


def tenant_non_interference(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """What others do changes nothing of mine."""
    mine = [item for item in inputs if subject.tenant(item) in ("acme", "")]
    together, alone = play(subject, inputs, frozenset()), play(subject, mine, frozenset())
    # a record of another's tells the time, which everybody shares
    assume(not subject.timed_out(together))
    assert own(together.written) == own(alone.written)


def own(written: Sequence[Written]) -> dict[str, list[Written]]:
    """Acme's records; an offset between two of them is another's in one run and empty in the other, and said to be."""
    return by_topic(
        w._replace(value=re.sub(rb',"skipped":[0-9]+', b"", w.value)) for w in written if w.tenant == "acme"
    )


def closed_world(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Only declared topics and signals appear, each topic with records of its own type in their canonical bytes."""
    run, stage = play(subject, inputs, cuts), subject.stage(inputs)
    for topic, _, value in run.written:
        assert topic in stage.writes
        assert encode(read(topic, value)) == value
    for step in run.steps:
        assert step.signals.keys() <= set(stage.signals)
        assert {rejection.topic for rejection in step.rejections} <= set(stage.reads)


def legal_life(subject: Subject, inputs: list[Any], cuts: Cuts, other: Cuts) -> None:
    """Everything goes through its states in a legal order."""
    subject.check_life(inputs, play(subject, inputs, cuts))


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
    pytest.param(law, subject, id=f"{law.__name__}-{name}")
    for law in LAWS
    for name, subject in SUBJECTS.items()
    if (name, law.__name__) not in NOT_APPLICABLE
]
cuts = st.frozensets(st.integers(0, 40), max_size=8)


@pytest.mark.parametrize(("law", "subject"), APPLICABLE)
def test_the_law_holds(law: Law, subject: Subject) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(subject.inputs(), cuts, cuts)
    def holds(inputs: list[Any], some: Cuts, other: Cuts) -> None:
        law(subject, inputs, some, other)

    holds()


@pytest.mark.parametrize("name", SUBJECTS)
def test_drawn_inputs_reach_every_topic_of_the_stage(name: str) -> None:
    """A law over runs that write nothing would say nothing."""
    subject, seen = SUBJECTS[name], set[str]()

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(subject.inputs())
    def reach(inputs: list[Any]) -> None:
        seen.update(w.topic for w in play(subject, inputs, frozenset()).written)

    reach()
    assert seen == set(subject.stage([]).writes) - OWN_TOPICS.get(name, set())


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_stage_reads_and_writes_what_the_table_of_topics_says(name: str) -> None:
    stage = SUBJECTS[name].stage([])
    assert stage.name == name
    assert set(stage.reads) == {topic.name for topic in TOPICS if name in topic.readers}
    assert set(stage.writes) == {topic.name for topic in TOPICS if name in topic.writers}


def test_exceptions_name_a_law_a_stage_and_a_reason() -> None:
    names = {law.__name__ for law in LAWS}
    assert len(LAWS) == 7
    for (stage, law), reason in NOT_APPLICABLE.items():
        assert stage in SUBJECTS
        assert law in names
        assert len(reason) > 40
