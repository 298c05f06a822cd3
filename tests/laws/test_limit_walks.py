"""One limit at a time, which changes while it is used: what it counts lies within both bounds of the slow model."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from pipeline.admit.cells import BudgetUse, Cells, RateLevel, SlidingLog
from pipeline.admit.journal import UndoJournal
from pipeline.admit.quota import Denial, amounts_of, ceiling, settle, weigh
from pipeline.events.control import Limit
from pipeline.events.records import Charge
from tests.laws.slow_limits import SlowCell, Use

START = 1_790_000_000_000
FIRST: dict[str, dict[str, Any]] = {
    "rate": {"amount": 60, "burst": 60},
    "window": {"amount": 3, "unit": "requests"},
    "budget": {"amount": 100, "period": "day"},
    "open": {"amount": 100},
}
CHANGES: dict[str, dict[str, tuple[Any, ...]]] = {
    "rate": {"amount": (6, 60, 600), "burst": (0, 60, 90), "period_s": (6, 60, 60, 600)},
    "window": {"amount": (1, 2, 3, 4, 5), "period_s": (7, 60, 600)},
    "budget": {"amount": (60, 100, 200), "period": ("day", "week", "month")},
    "open": {"amount": (50, 90, 130, 200)},
}
PAUSES = {
    "rate": (0, 1_000, 1_000, 30_000, 60_000),
    "window": (0, 1, 6_000, 30_000, 60_000),
    "budget": (0, 0, 40_000_000, 90_000_000, 10**9),
    "open": (0, 1_000),
}
LASTING = {"rate": (0, 1_000, 61_000), "window": (0,), "budget": (0, 50_000_000, 100_000_000), "open": (500, 3_000)}
"""Times that runs take."""
WALKS = 3_000
KINDS = ("ask",) * 7 + ("change", "mark")


def drawn(meter: str, random: Random) -> list[tuple[str, int, Any]]:
    """Draw kinds of step with the pause before and what they do it with.

    Evenly from few values: what breaks such limits are four steps that fit together.
    """
    steps: list[tuple[str, int, Any]] = []
    for _ in range(random.randint(4, 20)):
        what: Any = None
        kind = random.choice(KINDS)
        if kind == "ask":
            what = random.choice((20, 60, 60)), random.choice(LASTING[meter]), random.choice((0, 0, 50, 130))
        elif kind == "change":
            what = {name: random.choice(values) for name, values in CHANGES[meter].items()}
        steps.append((kind, random.choice(PAUSES[meter]), what))
    return steps


class Walk:
    """A limit is used, changed, pruned and restored."""

    def __init__(self, meter: Any) -> None:
        self.limit = Limit(id="x", meter=meter, **{"unit": "tokens", **FIRST[meter]})
        self.now, self.changed = START, START - 1
        self.cells, self.slow = Cells(), SlowCell()
        self.slow.put(self.limit, 0, START)
        self.running: list[tuple[int, tuple[Charge, ...], Use, int]] = []
        """When each run ends, what it reserved, and the percent of it that it uses."""

    def step(self, kind: str, pause: int, what: Any) -> None:
        """Let runs end that are due, then take a step."""
        until = self.now + pause
        for run in sorted(self.running, key=lambda run: run[0]):
            if run[0] <= until:
                self.now = run[0]
                self.running.remove(run)
                self.end(*run[1:])
        self.now = until
        getattr(self, kind)(what)

    def ask(self, drawn: tuple[int, int, int]) -> None:
        count, lasting, share = drawn
        amount = 1 if self.limit.unit == "requests" else count
        least, most = self.slow.counted(self.now)
        weighed = weigh(self.cells, [ceiling("t", self.limit)], amounts_of(count, 0, None), self.now)
        top = self.limit.burst or self.limit.amount
        if isinstance(weighed, Denial):
            assert most + amount > top, "refused for nothing"
            return
        assert least + amount <= top, "more than the limit"
        self.running.append((self.now + lasting, weighed, self.slow.charge(amount, self.now), share))
        self.put(weighed)

    def end(self, charges: tuple[Charge, ...], use: Use, share: int) -> None:
        used = use.amount * share // 100
        settled = settle(charges, amounts_of(used, 0, None), use.time, charged=True, estimated=share > 100)
        self.slow.end(use, use.amount if self.limit.unit == "requests" else used, self.now)
        self.put(settled)

    def change(self, update: dict[str, Any]) -> None:
        self.limit = self.limit.model_copy(update=update)
        self.slow.put(self.limit, 0, self.now)
        self.changed = self.now

    def mark(self, _: None) -> None:
        self.cells.prune(self.now, self.changed, UndoJournal())
        self.slow.mark(self.now)
        tables: dict[str, Any] = {"rates": RateLevel, "windows": SlidingLog, "budgets": BudgetUse, "reserved": int}
        for name, kind in tables.items():
            stored = msgspec.msgpack.encode(getattr(self.cells, name))
            setattr(self.cells, name, msgspec.msgpack.decode(stored, type=dict[str, kind]))  # type: ignore[valid-type]

    def put(self, charges: tuple[Charge, ...]) -> None:
        """Charge twice, the first time in a batch that is undone."""
        journal = UndoJournal()
        before = msgspec.msgpack.encode([getattr(self.cells, name) for name in Cells.__slots__])
        journal.begin()
        for charge in charges:
            self.cells.charge(charge, self.now, journal)
        self.cells.prune(self.now, self.changed, journal)
        journal.rollback()
        assert msgspec.msgpack.encode([getattr(self.cells, name) for name in Cells.__slots__]) == before
        for charge in charges:
            self.cells.charge(charge, self.now, journal)


@pytest.mark.parametrize("meter", FIRST)
def test_a_limit_that_changes_counts_neither_too_little_nor_too_much(meter: str) -> None:
    random = Random(meter)
    for _ in range(WALKS):
        steps = drawn(meter, random)
        walk = Walk(meter)
        for nth, step in enumerate(steps, 1):
            try:
                walk.step(*step)
            except AssertionError as fault:
                raise AssertionError(f"{fault}, by {steps[:nth]}") from fault
