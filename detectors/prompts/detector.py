"""The prompt detector: phrase rules and the learned scorer over the same readings, one score and one zone per part.

A part's log-odds are those of its worst reading: what the scorer gives, and on top what the rules found there. They are
counted from the flag threshold of the part's role and language, so a score of one half is that threshold everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import exp, log
from typing import Literal, NamedTuple

import numpy as np
from msgspec.structs import replace

from detectors.base import CRITICAL, HIGH, LOW, MEDIUM, Finding, Transcript
from detectors.prompts.grams import Hashed, hashed, join
from detectors.prompts.language import LANGUAGES, languages
from detectors.prompts.phrases import MENTIONED, ROLES, SUFFIX, Best, PhraseDetector, order, smuggled
from detectors.prompts.scorer import HEADS, Floats, Margins, Scorer, ScorerModel, load, windows_of
from detectors.prompts.views import Passage, PassageReading, batches, collapsed, readings, repetitive, said_once

Zone = Literal["pass", "uncertain", "block"]
SCORE = "injection.score"
PAGE = 4
"""Windows of a document from which a rule's use counts for the window that holds it alone."""
MENTION = 1.5
"""Log-odds taken off where rules find their phrases spoken about and none in use."""
AT_ONCE = 64
"""Passages scored together; their sums stay in the processor's cache."""
_SCORED = frozenset(("user", "document", "system"))
_HEAD_OF = {"user": 0, "document": 1, "system": 2}
_CEILING = 30.0


class Verdict(NamedTuple):
    """The judgement on one part. `odds` are log-odds above the flag threshold; start, end bound its worst window."""

    passage: Passage
    odds: float
    zone: Zone
    language: str
    view: str
    start: int
    end: int
    findings: tuple[Finding, ...]

    @property
    def score(self) -> float:
        """0 .. 1; one half is the flag threshold."""
        return 1 / (1 + exp(-max(-_CEILING, min(_CEILING, self.odds))))

    @property
    def flagged(self) -> bool:
        return self.odds >= 0


class _Worst(NamedTuple):
    """The worst reading of a passage so far."""

    odds: float
    language: int
    seen: PassageReading
    start: int
    end: int


class PromptDetector:
    """Phrase rules and learned scorer together; `name` is what a failure is reported under."""

    name = "prompts"

    def __init__(self, model: ScorerModel | None = None, scorer: Scorer | None = None) -> None:
        shipped = load() if model is None or scorer is None else (model, scorer)
        self.model, self.scorer = shipped
        self.phrases = PhraseDetector()
        zones = self.model.zones
        self._flags = [[zones[head][language].flag for language in LANGUAGES] for head in HEADS]
        self._steps = [
            [(zones[head][lang].uncertain - zones[head][lang].flag, zones[head][lang].block - zones[head][lang].flag)
             for lang in LANGUAGES] for head in HEADS
        ]  # fmt: skip
        self._floors = [min(zone.uncertain for zone in zones[head].values()) for head in HEADS]

    def screen(self, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
        """Findings per transcript, ordered by turn, then start; parts of the operator's own are not read."""
        found: list[list[Finding]] = [[] for _ in texts]
        for batch in batches(texts, ROLES, AT_ONCE):
            best, worst = self._read(batch)
            most: dict[int, int] = {}
            for passage in batch:
                found[passage.row] += smuggled(passage)
            for at, reading in worst.items():
                most[at] = severity_of(zone := self._zone(batch[at], reading), reading.odds)
                if zone != "pass":
                    found[batch[at].row].append(_finding(batch[at], reading, most[at]))
            for (at, _), finding in best.items():
                found[batch[at].row].append(judged(finding, most.get(at, LOW)))
        return [tuple(sorted(row, key=order)) if row else () for row in found]

    def assess(self, texts: Sequence[Transcript]) -> list[list[Verdict]]:
        """Per transcript a verdict on each part that holds text and has a head of its own, system parts too."""
        out: list[list[Verdict]] = [[] for _ in texts]
        for batch in batches(texts, _SCORED, AT_ONCE):
            best, worst = self._read(batch, everything=True)
            rules: dict[int, list[Finding]] = defaultdict(list)
            for (at, _), finding in best.items():
                rules[at].append(finding)
            for at, reading in sorted(worst.items()):
                passage = batch[at]
                zone, (start, end) = self._zone(passage, reading), _place(reading)
                most = severity_of(zone, reading.odds)
                told = [judged(finding, most) for finding in rules[at]]
                findings = tuple(sorted([*told, *smuggled(passage)], key=order))
                language, view = LANGUAGES[reading.language], reading.seen.name
                verdict = Verdict(passage, reading.odds, zone, language, view, start, end, findings)
                out[passage.row].append(verdict)
        return out

    def _zone(self, passage: Passage, reading: _Worst) -> Zone:
        uncertain, block = self._steps[_HEAD_OF[passage.role]][reading.language]
        return "block" if reading.odds >= block else "uncertain" if reading.odds >= uncertain else "pass"

    def _read(self, batch: Sequence[Passage], everything: bool = False) -> tuple[Best, dict[int, _Worst]]:
        """The rules' findings, and the worst reading of each passage: only of those near a zone, or of every one."""
        best: Best = {}
        worst: dict[int, _Worst] = {}
        for seen, grams in readings(batch):
            self._pass(batch, seen, grams, best, worst, everything)
        return best, worst

    def _pass(
        self,
        batch: Sequence[Passage],
        seen: Sequence[PassageReading],
        grams: Hashed,
        best: Best,
        worst: dict[int, _Worst],
        everything: bool,
    ) -> None:
        found: Best = {}
        self.phrases.match(batch, seen, grams, found)
        for key, finding in found.items():
            if key not in best or finding.severity > best[key].severity:
                best[key] = finding
        roles = np.array([_HEAD_OF.get(batch[view.at].role, -1) for view in seen])
        extra = self._evidence(seen, found, batch)
        for head in sorted(set(roles.tolist()) - {-1}):
            margins = self.scorer.margins(grams, head)
            odds = blend(margins, self.model.worst[HEADS[head]]) + extra
            mine = np.flatnonzero(roles == head)
            placed = self._placed(seen, found, head, odds, extra) if HEADS[head] == "document" else {}
            flooded = repetitive(grams, mine.tolist())
            for index in flooded:
                odds[index] = self._collapsed(seen[index].text, head, float(odds[index]), float(extra[index]))
            near = mine[(odds[mine] >= self._floors[head]) | everything]
            # most texts are far from any threshold, and then their language does not matter
            found_languages = languages(grams.joined, grams.codes, near.tolist()).tolist()
            for index, language in zip(near.tolist(), found_languages, strict=True):
                above = float(odds[index] - self._flags[head][language])
                if above >= 0 and index not in placed:
                    once = self._once(seen[index].text, head, float(odds[index]), float(extra[index]))
                    above = once - self._flags[head][language]
                span = int(margins.starts[index]), int(margins.ends[index])
                _keep(_Worst(above, language, seen[index], *span), worst)

    def _placed(
        self, seen: Sequence[PassageReading], found: Best, head: int, odds: Floats, extra: Floats
    ) -> dict[int, float]:
        """In a long page a rule's use is judged with the window around it, not with the worst window anywhere.

        Moves `odds`, takes the rules out of `extra`, gives the odds of pages of which such a window is the worst.
        """
        form = self.scorer.heads[head]
        window = form.window
        placed: dict[int, float] = {}
        for index, view in enumerate(seen):
            if len(view.text) <= PAGE * window or not extra[index] > 0:
                continue
            odds[index] -= extra[index]
            extra[index] = 0.0
            windows = int(windows_of(np.array((len(view.text),)), form)[0])
            uses = [finding for (at, _), finding in found.items() if at == view.at and finding.severity > LOW]
            for start, end in [view.within(finding.start, finding.end) for finding in uses]:
                low = max(0, (start + end - window) // 2)
                near = [each for each in uses if low <= view.within(each.start, each.end)[0] < low + window]
                alone = self.scorer.margins(hashed(join([view.text[low : low + window]])), head)
                value = float(alone.whole[0]) - form.many * log(windows) + evidence(self.model, near)
                if value > odds[index]:
                    odds[index] = placed[index] = value
        return placed

    def _collapsed(self, text: str, head: int, odds: float, extra: float) -> float:
        """Odds of a text that repeats itself: what repetition hides counts in full, and repetition does not add up."""
        short = collapsed(text)
        if short == text:
            return odds
        margins = self.scorer.margins(hashed(join([short])), head)
        once = float(blend(margins, self.model.worst[HEADS[head]])[0]) + extra
        return once if 2 * len(short) <= len(text) else max(odds, once)

    def _once(self, text: str, head: int, odds: float, extra: float) -> float:
        """Odds of a text in which each run of characters counts twice at most: a list's rows do not add up."""
        short = said_once(text, hashed(join([text])))
        if short == text:
            return odds
        margins = self.scorer.margins(hashed(join([short])), head)
        return min(odds, float(blend(margins, self.model.worst[HEADS[head]])[0]) + extra)

    def _evidence(self, seen: Sequence[PassageReading], found: Best, batch: Sequence[Passage]) -> Floats:
        """Log-odds that the rules add to each reading; what was found in a passage counts for all of its readings."""
        extra = np.zeros(len(seen))
        if not found:
            return extra
        uses: dict[int, list[Finding]] = defaultdict(list)
        for (at, _), finding in found.items():
            if finding.severity > LOW:
                uses[at].append(finding)
        mentioned = {at for (at, _), finding in found.items() if finding.confidence <= MENTIONED} - uses.keys()
        for index, view in enumerate(seen):
            if rules := uses.get(view.at):
                extra[index] = evidence(self.model, rules)
            elif view.at in mentioned:
                extra[index] = -MENTION
        return extra


def evidence(model: ScorerModel, uses: Sequence[Finding]) -> float:
    """Log-odds that these uses of rules add: the surest in full, up to three more, and a disguise around one."""
    said = [finding for finding in uses if finding.rule != SUFFIX]
    row = model.suffix if len(said) < len(uses) else 0.0
    if not said:
        return row
    sure = max(finding.confidence for finding in said) / 100
    hidden = any(finding.view in ("loose", "decoded") for finding in said)
    return model.use * sure + model.more * min(3, len(said) - 1) + model.hidden * hidden + row


def severity_of(zone: Zone, odds: float) -> int:
    """HIGH in the block zone, MEDIUM from the flag threshold on, LOW for what is merely uncertain or passes."""
    return HIGH if zone == "block" else MEDIUM if odds >= 0 else LOW


def judged(finding: Finding, most: int) -> Finding:
    """A rule's finding as grave as the part is judged with the rule's evidence in it; what is certain stays so."""
    if finding.severity == CRITICAL or finding.severity <= most:
        return finding
    return replace(finding, severity=most)


def blend(margins: Margins, share: float) -> Floats:
    """The whole text's margin and its worst window's, `share` parts of the latter."""
    return margins.whole * (1 - share) + margins.worst * share


def _keep(reading: _Worst, worst: dict[int, _Worst]) -> None:
    at = reading.seen.at
    if reading.seen.text and (at not in worst or reading.odds > worst[at].odds):
        worst[at] = reading


def _place(reading: _Worst) -> tuple[int, int]:
    return reading.seen.place(reading.start, reading.end)


def _finding(passage: Passage, reading: _Worst, severity: int) -> Finding:
    percent = round(100 / (1 + exp(-max(-_CEILING, min(_CEILING, reading.odds)))))
    return Finding(SCORE, severity, percent, *_place(reading), reading.seen.name, passage.turn)
