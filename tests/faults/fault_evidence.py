"""Counts which kinds of fault a run really met: from the kernel, from the log of Kafka and from what stages logged."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pipeline.demo.reconcile import Equation

Kind = Literal["lost race", "race with slow screening", "stopped stage", "rebalance", "starved CPU"]
KINDS: dict[Kind, str] = {
    "lost race": "batches in decisions that lost against another writer's",
    "race with slow screening": "another writer got in while a worker's screening stood still",
    "stopped stage": "stages that the kernel held stopped",
    "rebalance": "a further admit worker was given partitions of the group",
    "starved CPU": "spans in which stages waited for a CPU for a quarter of the time",
}
WANTED = 5
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) \w+ \S+ admit\[\d+\]: (another writer got|took over)")


@dataclass(slots=True)
class Span:
    """Something was the case for a worker from one moment to another, in seconds since the epoch."""

    worker: str
    began: float
    ended: float = float("inf")


class Evidence:
    """The faults of a run; ``logs`` is the folder in which each stage has its file."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._counts: Counter[Kind] = Counter()
        self._slow: list[Span] = []
        self._joined: list[Span] = []

    def count(self, kind: Kind) -> None:
        self._counts[kind] += 1

    def slow(self, worker: str) -> Span:
        """The screening of ``worker`` stands still until the span is ended."""
        self._slow.append(span := Span(worker, time.time()))
        return span

    def joined(self, worker: str) -> Span:
        """``worker`` is a further member of the group until the span is ended."""
        self._joined.append(span := Span(worker, time.time()))
        return span

    def met(self, lost: int) -> dict[Kind, int]:
        """Kinds by how often they were met; ``lost`` is the number of batches of losing writers."""
        raced = self._lines("another writer got")
        taken = self._lines("took over")
        return {
            "lost race": lost,
            "race with slow screening": sum(_within(span, raced) for span in self._slow),
            "stopped stage": self._counts["stopped stage"],
            "rebalance": sum(_within(span, taken) > 0 for span in self._joined),
            "starved CPU": self._counts["starved CPU"],
        }

    def _lines(self, said: str) -> dict[str, list[float]]:
        """When each worker said so, by the name of its file."""
        found: dict[str, list[float]] = {}
        for path in self._logs.glob("*.log"):
            hits = _LINE.findall(path.read_text("utf-8", "replace"))
            found[path.stem] = [datetime.fromisoformat(when).timestamp() for when, what in hits if what == said]
        return found


def equations(met: dict[Kind, int]) -> list[Equation]:
    """A run shows something only if it met every kind often enough."""
    return [Equation(f"met at least {WANTED}: {kind}", min(count, WANTED), WANTED) for kind, count in met.items()]


def _within(span: Span, times: dict[str, list[float]]) -> int:
    return sum(span.began <= moment <= span.ended for moment in times.get(span.worker, ()))
