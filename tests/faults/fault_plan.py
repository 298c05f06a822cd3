"""Which faults come, in which order and after which pauses: a function of the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.faults.fault_evidence import Kind
from tests.faults.fault_site import RIVAL, SECOND, STAGES, TENANTS, THIRD

Act = Literal["kill", "pause", "end", "rival", "full", "stop", "slow", "race", "join", "starve", "limits"]
PAUSED = ("admit", "generate", "seal")
CPU, CONTROL = "cpu", "control"
_EVERY = 100
"""One set of the slow faults for each so many kills."""
_STARVED_EVERY = 30
"""One set of the faults of starvation for each so many kills."""
MOST_FURTHER = 30
"""Faults that are added at most until every kind was met."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Once so many more calls were answered, and ``wait_s`` later, do ``act`` to ``target``; what does not end at once
    lasts ``hold_s``."""

    act: Act
    target: str
    answers: int
    wait_s: float
    hold_s: float = 0.0


Drawn = tuple[Act, str, float]


def plan(seed: int, kills: int, targets: list[str], wave: float, hold_s: float, *, starve: bool) -> list[Fault]:
    """Every target is killed once at least; pauses, clean restarts, rivals and a full store lie between.

    Faults come in waves of ``wave`` on average: at most a second apart within one, and the next only when the system
    answers again, or all would be spent on a system that is down already. ``starve`` adds stages that are stopped for
    moments, slow screening, members that come and go, and spans without CPU.
    """
    chance = random.Random(seed)
    first = [targets[index % len(targets)] for index in range(min(kills, len(targets)))]
    drawn: list[Drawn] = [("kill", t, 0.0) for t in first]
    drawn += [("kill", chance.choice(targets), 0.0) for _ in range(kills - len(first))]
    for _ in range(-(-kills // _EVERY)):
        drawn += [("pause", stage, hold_s) for stage in PAUSED]
        drawn += [("end", "store", 0.0), ("end", chance.choice([t for t in targets if "broker" in t]), 0.0)]
        drawn += [("rival", tenant, hold_s) for tenant in TENANTS if TENANTS[tenant] != "free"]
        drawn.append(("full", "store", hold_s / 2))
    for _ in range(-(-kills // _STARVED_EVERY) if starve else 0):
        drawn += _starved(chance)
    drawn += [("limits", CONTROL, 0.0) for _ in range(2 + kills // 10)]
    chance.shuffle(drawn)
    return [
        Fault(act, target, 0 if chance.random() * wave > 1 else chance.randint(1, 20), chance.uniform(0, 1), hold)
        for act, target, hold in drawn
    ]


def further(seed: int) -> Callable[[Sequence[Kind]], Fault]:
    """Give a function that draws one more fault of a kind that was not met often enough."""
    chance = random.Random(seed + 1)

    def draw(missing: Sequence[Kind]) -> Fault:
        act, target, hold = _of_kind(chance.choice(missing), chance)
        return Fault(act, target, chance.randint(1, 10), 0.0, hold)

    return draw


def _starved(chance: random.Random) -> Iterator[Drawn]:
    kinds: list[tuple[Kind, int]] = [("stopped stage", 8), ("rebalance", 6), ("starved CPU", 6)]
    kinds += [("race with slow screening", 3)]
    for kind, count in kinds:
        for _ in range(count):
            yield _of_kind(kind, chance)
    for _ in range(4):
        yield "slow", chance.choice(("admit", SECOND)), chance.uniform(0.3, 3)


def _of_kind(kind: Kind, chance: random.Random) -> Drawn:
    match kind:
        case "stopped stage":
            return "stop", chance.choice((*STAGES, SECOND)), chance.uniform(0.1, 3)
        case "rebalance":
            return "join", THIRD, chance.uniform(0.5, 3)
        case "starved CPU":
            return "starve", CPU, chance.uniform(2, 5)
        case "lost race" | "race with slow screening":
            return "race", RIVAL, chance.uniform(8, 14)
