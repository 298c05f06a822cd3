"""Ordinary applications replayed through the account detector and answered under the plans that ship."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from detectors.accounts.applications.sessions import OrdinarySession
from detectors.accounts.campaign import Campaigns
from detectors.accounts.judge import shipped
from detectors.accounts.replay import AccountVerdict, read, replay
from detectors.accounts.response import STEPS
from detectors.prompts.training.rows import drawing
from pipeline.control.policy_file import read_policies
from pipeline.events.control import Plan
from tests.honest.machine import MachineFile, text_of
from tests.honest.pastes import changed

ALARMED, ALARMED_OF_A_SHAPE = 0.01, 0.05
"""Most of all accounts, and of those of one shape, that may be alarmed."""
FILES = 160
"""Files of a type from which pieces are cut."""
PROSE, CODE = ("rst", "md", "txt", "man"), ("py", "js", "ts")


class ShapeTally(NamedTuple):
    """Accounts of one shape, and those that were alarmed, by the kind of the alarm."""

    shape: str
    accounts: int
    alarmed: Counter[str]

    @property
    def share(self) -> float:
        return self.alarmed.total() / self.accounts


def pieces(found: dict[str, list[MachineFile]]) -> dict[str, list[str]]:
    """Pieces of this machine's files for the slots of templates."""
    prose, code = (
        [text for kind in kinds for file in found.get(kind, ())[:FILES] if (text := text_of(file))]
        for kinds in (PROSE, CODE)
    )
    draw = drawing("pieces")
    cut = {"passage": _cut(prose, draw, 200, 1400), "code": _cut(code, draw, 120, 900)}
    diffs = [changed(one, other, draw, "app.py") for one, other in itertools.pairwise(code)]
    return {**cut, "diff": [diff[:1400] for diff in diffs if diff]}


def _cut(texts: Sequence[str], draw: np.random.Generator, least: int, most: int) -> list[str]:
    found = []
    for text in texts:
        for _ in range(3):
            size = int(draw.integers(least, most))
            start = int(draw.integers(max(1, len(text) - size)))
            found.append(text[start : start + size])
    return found


def judged(sessions: Iterable[OrdinarySession]) -> list[tuple[str, AccountVerdict]]:
    """Each account's shape and verdict; all of them, of as many tenants, share one clock."""
    read_sessions = [(each.shape, read(each.line)) for each in sessions]
    verdicts = replay([account for _, account in read_sessions], shipped(), Campaigns())
    return [(shape, verdict) for (shape, _), verdict in zip(read_sessions, verdicts, strict=True)]


def tallies(verdicts: Iterable[tuple[str, AccountVerdict]]) -> list[ShapeTally]:
    """One tally a shape, those alarmed most first."""
    accounts: Counter[str] = Counter()
    alarmed: dict[str, Counter[str]] = {}
    for shape, verdict in verdicts:
        accounts[shape] += 1
        kinds = alarmed.setdefault(shape, Counter())
        if verdict.alarmed:
            kinds[f"{verdict.kind} at {verdict.alarmed_at}"] += 1
    found = [ShapeTally(shape, accounts[shape], alarmed[shape]) for shape in accounts]
    return sorted(found, key=lambda tally: (-tally.share, tally.shape))


def met(found: Sequence[ShapeTally]) -> bool:
    """Tell whether as few are alarmed as is promised, in all and of each shape, and no plan acts on them."""
    alarmed, accounts = sum(each.alarmed.total() for each in found), sum(each.accounts for each in found)
    within = all(each.share <= ALARMED_OF_A_SHAPE for each in found)
    return within and alarmed <= ALARMED * accounts and not enforcing()


def enforcing() -> list[str]:
    """Plans that ship and answer an account otherwise than by telling."""
    with resources.as_file(resources.files("pipeline.control").joinpath("policies/default.toml")) as path:
        shipped_plans = [document for document in read_policies(path) if isinstance(document, Plan)]
    return [plan.id for plan in (Plan(id="default"), *shipped_plans) if plan.extraction != STEPS[0]]
