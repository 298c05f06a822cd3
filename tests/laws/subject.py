"""What a law asks of a stage: to be played over drawn inputs, and to tell what it wrote and what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from hypothesis.strategies import SearchStrategy

Cuts = frozenset[int]


class Written(NamedTuple):
    """One record as its bytes; ``tenant`` is empty where it is nobody's."""

    topic: str
    tenant: str
    value: bytes


@dataclass(frozen=True)
class Run:
    """A stage over a sequence of inputs: its records in order, and its state at the end."""

    written: Sequence[Written]
    state: Any
    rows: Sequence[Any] = field(default=())
    """What goes to the store beside the records."""


class Subject(Protocol):
    """A stage under the laws. Inputs are values of its own choice, in the order of the merged sequence."""

    name: str
    writes: ClassVar[dict[str, Any]]
    """Topic → type of its records, for every topic that the stage may write."""

    def inputs(self) -> SearchStrategy[list[Any]]: ...

    def tenant(self, item: Any) -> str:
        """Whose input it is; empty for what concerns all (time)."""

    def run(self, inputs: Sequence[Any], cuts: Cuts) -> Run:
        """Play the inputs; before the positions in ``cuts`` a batch ends, or the worker is replaced."""

    def fold(self, inputs: Sequence[Any], run: Run) -> Any:
        """The state out of the written records (and inputs that are records themselves) alone."""

    def due(self, inputs: Sequence[Any]) -> Counter[Any]:
        """How often each input has to be answered."""

    def answers(self, run: Run) -> Counter[Any]:
        """How often each was."""

    def essence(self, run: Run) -> Any:
        """What no split may change."""

    def exact(self, run: Run) -> Any:
        """What equal inputs must give again, byte for byte."""

    def check_life(self, inputs: Sequence[Any], run: Run) -> None:
        """Assert that everything went through its states in a legal order."""
