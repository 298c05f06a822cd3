"""A stage under the laws: its inputs and what they are owed. Every stage is played by the same loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from hypothesis.strategies import SearchStrategy

from pipeline.events import messages
from pipeline.events.records import LogRecord
from pipeline.stage import InputBatch, Stage, Step

Cuts = frozenset[int]
RECORDS: dict[str, Any] = {
    "decisions": LogRecord,
    "work": messages.Work,
    "completions": messages.Completion,
    "responses": messages.Response,
    "findings": messages.FindingEvent,
    "alerts": messages.Alert,
    "deliveries": messages.Delivery,
    "audit": messages.Manifest,
    "dead_letters": messages.DeadLetter,
}
"""Topic → type of its records."""


class Written(NamedTuple):
    """One record as its bytes; ``tenant`` is empty where it is nobody's."""

    topic: str
    tenant: str
    value: bytes


@dataclass
class Run:
    """A stage over a sequence of inputs: its steps, their records in order, and its state at the end."""

    state: Any
    written: list[Written] = field(default_factory=list)
    steps: list[Step[Any]] = field(default_factory=list)

    def records(self, topic: str) -> list[Any]:
        """What was written to a topic."""
        return [read(topic, written.value) for written in self.written if written.topic == topic]


class Subject(ABC):
    """A stage under the laws. Inputs are values of its own choice, in the order of the merged sequence."""

    resumes = True
    """A successor takes the state up from the records."""

    @abstractmethod
    def stage(self, inputs: Sequence[Any]) -> Stage[Any, Any, Any]: ...

    @abstractmethod
    def inputs(self) -> SearchStrategy[list[Any]]: ...

    @abstractmethod
    def batch(self, state: Any, group: Sequence[Any]) -> InputBatch[Any]:
        """Give the batch that the partition makes of a group."""

    @abstractmethod
    def folded(self, inputs: Sequence[Any], run: Run) -> Iterable[Any]:
        """Give the records that a successor folds: those written, and inputs that are records themselves."""

    @abstractmethod
    def due(self, inputs: Sequence[Any]) -> Counter[Any]:
        """Count how often each input has to be answered."""

    @abstractmethod
    def answers(self, run: Run) -> Counter[Any]:
        """Count how often each was."""

    @abstractmethod
    def check_life(self, inputs: Sequence[Any], run: Run) -> None:
        """Assert that everything went through its states in a legal order."""

    def timed_out(self, run: Run) -> bool:
        """Tell whether something in the run came by the passing of time alone."""
        return False

    def tenant(self, item: Any) -> str:
        """Name the owner of an input; empty for what concerns all (time)."""
        return str(item.tenant)

    def groups(self, inputs: Sequence[Any], cuts: Cuts) -> Iterator[Sequence[Any]]:
        """Give the inputs as they arrive together; at a cut the worker is replaced as well."""
        borders = [0, *sorted(at for at in cuts if 0 < at < len(inputs)), len(inputs)]
        return (inputs[start:end] for start, end in pairwise(borders) if start < end)

    def view(self, state: Any) -> Any:
        """Give what is to be compared of a state."""
        return state

    def essence(self, run: Run) -> Any:
        """Give what no split may change."""
        return by_topic(run.written)

    def exact(self, run: Run) -> Any:
        """Give what equal inputs must give again, byte for byte."""
        return run.written, self.view(run.state)


def play(subject: Subject, inputs: Sequence[Any], cuts: Cuts) -> Run:
    """Drive the stage as its partition does; at each cut a successor goes on that knows the records alone."""
    stage = subject.stage(inputs)
    run, waiting, arrived = Run(stage.start()), list[Any](), 0
    for group in subject.groups(inputs, cuts):
        batch, told = subject.batch(run.state, group), 0
        waiting += batch.items
        arrived += len(group)
        while True:
            step = stage.step(run.state, InputBatch(waiting, batch.now, told=told))
            waiting = waiting[step.consumed :]
            run.steps.append(step)
            run.state = step.state
            told = getattr(step, "told", 0) if getattr(step, "ticked", False) else told
            run.written += [Written(e.topic, tenant_of(e.topic, e.value), e.value) for e in step.emissions]
            if not step.more and (not step.consumed or not waiting):
                break
        if subject.resumes and arrived in cuts and arrived < len(inputs):
            run.state = stage.fold(stage.start(), subject.folded(inputs[:arrived], run))
    return run


def read(topic: str, value: bytes) -> Any:
    return msgspec.json.decode(value, type=RECORDS[topic])


def by_topic(written: Iterable[Written]) -> dict[str, list[Written]]:
    """The records of each topic in their order; there is none between topics."""
    found: dict[str, list[Written]] = {}
    for one in written:
        found.setdefault(one.topic, []).append(one)
    return found


def tenant_of(topic: str, value: bytes) -> str:
    return getattr(read(topic, value), "tenant", "")
