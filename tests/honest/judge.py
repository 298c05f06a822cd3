"""What the shipped plan does with ordinary texts, counted by kind and held against what is promised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from detectors.base import MEDIUM, Part
from detectors.catalogue import screen
from detectors.pii import find
from detectors.prompts.assess import PROMPTS
from pipeline.admit import policy
from pipeline.events.control import Plan
from tests.honest.pastes import OrdinaryText

PLAN = Plan(id="default")
_BATCH = 128
TECHNICAL = "answers with technical values"


class Bar(NamedTuple):
    """The most of a kind that may be refused and flagged, and refused of one group of it."""

    refused: float
    flagged: float
    group: float = 1.0


BARS = {
    "pasted": Bar(0.001, 0.01, 0.005),
    "shapes of text": Bar(0.001, 0.01, 0.005),
    "document": Bar(0.0, 0.01),
    "stock prompts": Bar(0.0, 0.0),
    "sentences": Bar(0.01, 1.0),
    "public benign rows": Bar(0.001, 0.01),
    TECHNICAL: Bar(0.001, 1.0),
}
"""By the beginning of a kind."""


class Judged(NamedTuple):
    """One text and what the plan makes of it."""

    text: OrdinaryText
    refused: bool
    flagged: bool
    rules: tuple[str, ...]


class OrdinaryTally(NamedTuple):
    """A line of the table; `worst` is the group of which most is refused, and its share."""

    kind: str
    texts: int
    refused: float
    flagged: float
    worst: tuple[str, float]
    met: bool


def judged(texts: Iterable[OrdinaryText]) -> list[Judged]:
    """Each text screened as a request of its own under the plan that ships."""
    source, out = iter(texts), []
    while batch := list(islice(source, _BATCH)):
        transcripts = [(Part(each.role, each.text),) for each in batch]
        for each, found in zip(batch, screen(transcripts, detectors=(PROMPTS,)), strict=True):
            told = [finding for finding in found if finding.severity >= MEDIUM]
            rules = tuple(sorted({finding.rule for finding in told}))
            documents = (0,) if each.role == "document" else ()
            out.append(Judged(each, bool(policy.refusal(PLAN, found, documents)), bool(told), rules))
    return out


def technical(texts: Iterable[OrdinaryText]) -> list[Judged]:
    """Whole files as answers: refused stands for redacted under the plan that ships, flagged for found at all.

    Mail addresses in files are those of people.
    """
    out = []
    for each in texts:
        kinds = {item.type for item in find(each.text, contextual=False)} - {"EMAIL"}
        redacted = kinds.difference(PLAN.personal_off)
        out.append(Judged(each._replace(kind=TECHNICAL), bool(redacted), bool(kinds), tuple(sorted(kinds))))
    return out


def tallies(found: Sequence[Judged]) -> list[OrdinaryTally]:
    """One line a kind, in the order in which they came."""
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for each in found:
        kinds[each.text.kind].append(each)
    return [_tally(kind, each) for kind, each in kinds.items()]


def _tally(kind: str, found: Sequence[Judged]) -> OrdinaryTally:
    groups: dict[str, list[bool]] = defaultdict(list)
    for each in found:
        groups[each.text.group].append(each.refused)
    shares = {group: sum(each) / len(each) for group, each in groups.items()}
    worst = max(shares, key=lambda group: (shares[group], group))
    refused, flagged = (sum(each) / len(found) for each in ([j.refused for j in found], [j.flagged for j in found]))
    bar = bar_of(kind)
    met = refused <= bar.refused and flagged <= bar.flagged and shares[worst] <= bar.group
    return OrdinaryTally(kind, len(found), refused, flagged, (worst, shares[worst]), met)


def bar_of(kind: str) -> Bar:
    return next(bar for beginning, bar in BARS.items() if kind.startswith(beginning))
