"""The reasons of the prompt detector: rules with their words, and the n-grams that weigh most.

The one place where a detector gives text back: for the person at a terminal who typed it, never for a record.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from detectors.base import Part, Role
from detectors.prompts.assess import PROMPTS, Assessment, assess
from detectors.prompts.detector import blend
from detectors.prompts.grams import CHAR_BITS, OFFSETS, SIZES, blocks, hashed, join
from detectors.prompts.scorer import HEADS, SMOOTH
from detectors.prompts.views import Passage, readings

MAX_CHARS = 20_000
"""Characters of the text whose n-grams are listed."""
TOP = 12
FLAG = 0.5
MOST_PASSAGES, MOST_GONE = 60, 3
"""Passages of a text that are tried, and how many may go together."""
_PASSAGE = re.compile(r"[^.!?。！？\n]*(?:[.!?。！？]+(?=\s|$)|[。！？]+|\n+|$)\s*|.")
_TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_]+", re.UNICODE)
_KINDS = ("2 chars", "3 chars", "4 chars", "word", "2 words", "3 words", "skip")


class FiredRule(NamedTuple):
    """A rule that fired, with the words it matched."""

    rule: str
    severity: int
    confidence: int
    view: str
    start: int
    end: int
    text: str


class Gram(NamedTuple):
    """An n-gram of the worst reading and the log-odds that all its places add."""

    kind: str
    text: str
    weight: float


class WeighedWord(NamedTuple):
    """A word of the worst reading and the log-odds of all grams that begin in it."""

    text: str
    weight: float


class LesserText(NamedTuple):
    """A text that would not be flagged: the original without these passages, and its score."""

    without: list[str]
    score: float


class Explanation(NamedTuple):
    score: float
    zone: str
    flagged: bool
    language: str
    view: str
    version: str
    rules: list[FiredRule]
    words: list[WeighedWord]
    grams: list[Gram]
    passes: LesserText | None
    """The least that must go so that it is not flagged; None where it is not flagged, or nothing less would do."""


def explain(text: str, role: Role = "user") -> Explanation:
    """Why `text` is scored as it is in this role."""
    (verdict,) = assess([(Part(role, text),)])
    rules = [
        FiredRule(f.rule, f.severity, f.confidence, f.view, f.start, f.end, text[f.start : f.end][:80])
        for f in verdict.findings
    ]
    worst, head = _reading(text, role, verdict), HEADS.index(role)
    passes = _without(text, role) if verdict.flagged else None
    shown = verdict.score, verdict.zone, verdict.flagged, verdict.language, verdict.view
    return Explanation(*shown, PROMPTS.model.version, rules, _words(worst, head), _grams(worst, head), passes)


def _without(text: str, role: Role) -> LesserText | None:
    """Passages are taken out one after the other, each time the one whose absence lowers the score most."""
    pieces = [piece for piece in _PASSAGE.findall(text[:MAX_CHARS]) if piece.strip()][:MOST_PASSAGES]
    gone: list[str] = []
    while len(pieces) > 1 and len(gone) < MOST_GONE:
        rests = ["".join(pieces[:at] + pieces[at + 1 :]) for at in range(len(pieces))]
        scores = [verdict.score for verdict in assess([(Part(role, rest),) for rest in rests])]
        at = min(range(len(pieces)), key=lambda place: (scores[place], len(pieces[place])))
        gone.append(pieces.pop(at).strip())
        if scores[at] < FLAG:
            return LesserText(gone, scores[at])
    return None


def _words(text: str, head: int) -> list[WeighedWord]:
    """The TOP words by what they add, heaviest first; words of one script without blanks are single signs."""
    grams = hashed(join([text]))
    sums = PROMPTS.scorer.places(grams, head)
    form = PROMPTS.scorer.heads[head]
    unit = form.scale / (len(text) + 1 + SMOOTH) ** 0.5
    begin = int(grams.joined.starts[0])
    totals: dict[str, float] = defaultdict(float)
    for match in _TOKEN.finditer(text):
        totals[match[0]] += float(sums[begin + match.start() : begin + match.end()].sum()) * unit
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [WeighedWord(word, weight) for word, weight in ordered[:TOP] if weight > 0]


def _reading(text: str, role: Role, verdict: Assessment) -> str:
    """The reading that the verdict is about: of those of its name, the worst."""
    named: list[str] = []
    for seen, _ in readings([Passage(0, 0, role, text[:MAX_CHARS])]):
        named += [view.text for view in seen if view.name == verdict.view and view.text]
    if not named:
        return ""
    head = HEADS.index(role)
    odds = blend(PROMPTS.scorer.margins(hashed(join(named)), head), PROMPTS.model.worst[role])
    return named[int(odds.argmax())]


def _grams(text: str, head: int) -> list[Gram]:
    """The TOP grams by absolute weight, heaviest first."""
    joined = join([text])
    scorer = PROMPTS.scorer
    unit = scorer.heads[head].scale / (len(text) + 1 + SMOOTH) ** 0.5
    totals: dict[tuple[int, str], float] = defaultdict(float)
    for block in blocks(hashed(joined)):
        table = scorer.weights[head][OFFSETS[block.order] : OFFSETS[block.order] + SIZES[block.order]]
        values = table.take(block.slots).tolist()
        places = range(len(values)) if block.places is None else block.places.tolist()
        for place, value in zip(places, values, strict=True):
            if value:
                totals[block.order, _text(joined.text, place, block.order)] += value * unit
    ordered = sorted(totals.items(), key=lambda item: (-abs(item[1]), item[0]))
    return [Gram(_KINDS[order], gram, weight) for (order, gram), weight in ordered[:TOP]]


def _text(text: str, place: int, order: int) -> str:
    """The text of the gram at this place."""
    if order < len(CHAR_BITS):
        return text[place : place + order + 2].replace("\x00", "")
    count = (1, 2, 3, 3)[order - len(CHAR_BITS)]
    words = re.compile(r"\w+").findall(text[place : place + 200])[:count]
    return " _ ".join((words[0], words[-1])) if _KINDS[order] == "skip" else " ".join(words)
