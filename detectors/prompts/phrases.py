"""The phrase rules: anchors of all rules are looked for at once, patterns only where an anchor stood.

Cost: one joined pass over a batch, some 10 ns a character, and about 2 µs for each anchor hit. A rule
reports once per part, at its worst reading. System parts are the operator's own words and are not
screened. The catalogue bounds what comes in.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from detectors.base import HIGH, LOW, MEDIUM, Finding, Transcript
from detectors.prompts.anchors import AnchorIndex
from detectors.prompts.grams import Hashed
from detectors.prompts.mention import is_for_people, is_mention
from detectors.prompts.rulebook import PhraseRule, load_rules
from detectors.prompts.suffix import adversarial_suffix
from detectors.prompts.views import Passage, PassageReading, batches, readings

SMUGGLED = "injection.hidden.tag-characters"
SUFFIX = "injection.suffix.token-salad"
ROLES = frozenset(("user", "document", "assistant"))
_SMUGGLED = re.compile("[\U000e0020-\U000e007e]{8,}")
_AT_ONCE = 4096

Best = dict[tuple[int, int], Finding]
"""The worst finding for (passage of the batch, rule number); an adversarial suffix has _SUFFIX for a number."""
_SUFFIX = -1
MENTIONED = 30
"""Confidence of a phrase that is spoken about."""
FOR_PEOPLE = 40
"""Confidence of a phrase that people say to people."""


class PhraseDetector:
    """Bilingual phrase families (English, Chinese) over clean, loose and decoded views."""

    name = "phrases"

    def __init__(self, rules: Sequence[PhraseRule] | None = None) -> None:
        self.rules = tuple(load_rules() if rules is None else rules)
        by_anchor: dict[str, list[int]] = {}
        for index, rule in enumerate(self.rules):
            for anchor in rule.anchors:
                by_anchor.setdefault(anchor, []).append(index)
        self._anchors = AnchorIndex({anchor: tuple(indices) for anchor, indices in by_anchor.items()})

    def screen(self, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
        """Findings per transcript, ordered by turn, then start."""
        found: list[list[Finding]] = [[] for _ in texts]
        for batch in batches(texts, ROLES, _AT_ONCE):
            best: Best = {}
            for seen, grams in readings(batch):
                self.match(batch, seen, grams, best)
            for passage in batch:
                found[passage.row] += smuggled(passage)
            for (at, _), finding in best.items():
                found[batch[at].row].append(finding)
        return [tuple(sorted(row, key=order)) if row else () for row in found]

    def match(self, batch: Sequence[Passage], seen: Sequence[PassageReading], grams: Hashed, best: Best) -> None:
        """Adds to `best` what the rules find in the readings `seen`, which are the texts of the batch `grams`."""
        joined = grams.joined
        starts, ends = joined.starts.tolist(), joined.ends.tolist()
        windows: dict[tuple[int, int], list[list[int]]] = {}
        for end, rules in self._anchors.find(joined.text, grams.chars):
            index = bisect_right(starts, end) - 1
            if index < 0 or end >= ends[index]:
                continue
            place = end - starts[index]
            role = batch[seen[index].at].role
            for number in rules:
                if role not in self.rules[number].roles:
                    continue
                reach = self.rules[number].reach
                spans = windows.setdefault((index, number), [])
                if spans and place - reach <= spans[-1][1]:
                    spans[-1][1] = place + reach
                else:
                    spans.append([max(0, place - reach), place + reach])
        for (index, number), spans in windows.items():
            view = seen[index]
            finding = _worst(self.rules[number], view, spans, batch[view.at])
            known = best.get((view.at, number))
            if finding is not None and (known is None or finding.severity > known.severity):
                best[view.at, number] = finding
        for view in seen:
            if batch[view.at].role == "user" and view.name == "clean" and (suffix := adversarial_suffix(view.text)):
                place = view.place(*suffix)
                best[view.at, _SUFFIX] = Finding(SUFFIX, MEDIUM, 80, *place, "clean", batch[view.at].turn)


def _worst(rule: PhraseRule, seen: PassageReading, spans: Iterable[list[int]], passage: Passage) -> Finding | None:
    """The rule's first use in the windows, else what people say to people, else its first mention, else nothing."""
    lesser: Finding | None = None
    for start, end in _matches(rule, seen.text, spans):
        most = rule.confidence
        if rule.guard and is_mention(seen.text, start, end):
            most = MENTIONED
        elif rule.guard and is_for_people(seen.text, start, end):
            most = FOR_PEOPLE
        if most < rule.confidence and lesser is not None and lesser.confidence >= most:
            continue
        finding = _located(rule, seen, start, end, passage, most)
        if most == rule.confidence:
            return finding
        lesser = finding
    return lesser


def _matches(rule: PhraseRule, text: str, spans: Iterable[list[int]]) -> Iterator[tuple[int, int]]:
    for low, high in spans:
        stop = high
        while stop < len(text) and stop < high + 32 and text[stop].isalnum():
            stop += 1
        contains = text[low:stop].__contains__
        known: list[bool | None] = [None] * len(rule.needs)
        for reading in rule.readings:
            if _all_there(reading.needs, rule.needs, known, contains):
                for match in reading.pattern.finditer(text, low, stop):
                    if match.start() < match.end():
                        yield match.span()


def _all_there(
    groups: Sequence[int], needs: Sequence[tuple[str, ...]], known: list[bool | None], contains: Callable[[str], bool]
) -> bool:
    """True where a string of each of these groups is there; `known` keeps answers, as readings share groups."""
    for group in groups:
        answer = known[group]
        if answer is None:
            answer = known[group] = any(map(contains, needs[group]))
        if not answer:
            return False
    return True


def _located(rule: PhraseRule, seen: PassageReading, start: int, end: int, passage: Passage, most: int) -> Finding:
    """The finding for `[start, end)` of a reading, in offsets of the original part."""
    start, end = seen.place(start, end)
    severity = LOW if most < rule.confidence else rule.severity
    return Finding(rule.id, severity, most, start, end, seen.name, passage.turn)


def smuggled(passage: Passage) -> tuple[Finding, ...]:
    """One finding for the first run of tag characters that is longer than any flag's."""
    match = None if passage.text.isascii() else _SMUGGLED.search(passage.text)
    return (Finding(SMUGGLED, HIGH, 95, match.start(), match.end(), "raw", passage.turn),) if match else ()


def order(finding: Finding) -> tuple[int, int, str]:
    return finding.turn, finding.start, finding.rule
