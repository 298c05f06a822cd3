"""What a figure gives: rows of one table, each with its load, its goal and whether it was met."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

_HOLDS: dict[str, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement. Without ``goal`` it is shown for what it explains."""

    figure: str
    what: str
    load: str
    value: float
    unit: str
    goal: float | None = None
    sense: Literal[">=", "<="] = ">="

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else _HOLDS[self.sense](self.value, self.goal)

    def cells(self) -> tuple[str, ...]:
        """The row as printed."""
        goal = "" if self.goal is None else f"{self.sense} {_shown(self.goal)}"
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        return self.figure, self.what, self.load, f"{_shown(self.value)} {self.unit}", goal, verdict

    def document(self) -> dict[str, object]:
        """The row as JSON."""
        return {**asdict(self), "met": self.met}


HEAD = ("figure", "what", "load", "measured", "goal", "verdict")


def percentile(values: list[float], share: float) -> float:
    """The smallest value that ``share`` of all do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))] if ordered else 0.0


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}".rstrip("0").rstrip(".")
