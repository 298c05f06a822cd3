"""Every stage has one shape: batches in, records out, and a state between them.

A stage reads no clock and no network. Its partition gathers a batch, calls ``step``, writes the emissions until they
are acknowledged and goes on with the state. The state is ahead of the log until then: where a write failed or another
writer came first, ``fold`` gives it again from the records that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from pipeline.events.emission import Emission

State = TypeVar("State")
Item = TypeVar("Item", contravariant=True)
Record = TypeVar("Record", contravariant=True)
Gathered = TypeVar("Gathered", covariant=True)


class InputRecord(Protocol):
    """One record as it lies in its topic; ``time`` is the broker's, in Unix ms."""

    @property
    def offset(self) -> int: ...
    @property
    def time(self) -> int: ...
    @property
    def value(self) -> bytes: ...


NOT_ASKED = 2**63 - 1
"""Stands for a first offset that no broker was asked for; nothing lies behind it."""


@dataclass(frozen=True, slots=True)
class InputBatch(Generic[Gathered]):
    """The inputs of one step, in the order in which they are to be answered."""

    items: Sequence[Gathered]
    now: int
    """Unix ms."""
    drained: bool = True
    """The sources were read to their end, so what is not in ``items`` does not exist yet."""
    ticks: bool = True
    """The time of the log may be told now, where something falls due by ``now``."""
    told: int = 0
    """The log's time as the last tick told it; what is due by it has expired."""
    kept_from: int = NOT_ASKED
    """The first offset that the source still holds; what is missing behind it was never a record."""


class Rejection(NamedTuple):
    """One input cannot be understood, and nothing else follows from it."""

    topic: str
    offset: int
    reason: str


@dataclass(slots=True)
class Step(Generic[State]):
    """The answer to one batch."""

    state: State
    """The next state; it may be the same object, changed."""
    emissions: list[Emission] = field(default_factory=list)
    """In the order in which they are written, those to the stage's own log first."""
    rejections: list[Rejection] = field(default_factory=list)
    signals: dict[str, int] = field(default_factory=dict)
    """How often something happened that the stage declares."""
    consumed: int = 0
    """Items that are done with; the rest comes again, with newcomers behind it."""
    more: bool = False
    """The next step has something to do, also without newcomers."""

    def signal(self, name: str, count: int = 1) -> None:
        """Count a happening."""
        self.signals[name] = self.signals.get(name, 0) + count


class Stage(Protocol[State, Item, Record]):
    """One process of the pipeline, without its clock and its connections."""

    @property
    def name(self) -> str: ...
    @property
    def reads(self) -> tuple[str, ...]:
        """Topics that the process reads, its own log included."""
        ...

    @property
    def writes(self) -> tuple[str, ...]:
        """Topics that the process writes."""
        ...

    @property
    def signals(self) -> tuple[str, ...]:
        """Names that may stand in ``Step.signals``."""
        ...

    def start(self) -> State:
        """Give the state before the first record."""
        ...

    def step(self, state: State, batch: InputBatch[Item]) -> Step[State]:
        """Answer a batch. The same state and batch give the same bytes."""
        ...

    def fold(self, state: State, records: Iterable[Record]) -> State:
        """Give the state after records that are written."""
        ...
