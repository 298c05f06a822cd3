"""The phrase detector: anchors of all rules are looked for at once, patterns only where an anchor stood.

Cost: one joined pass over a batch, some 10 ns a character, and about 2 µs for each anchor hit. A rule
reports once per part, at its worst reading. System parts are the operator's own words and are not
screened. The catalogue bounds what comes in.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from detectors.anchors import AnchorIndex
from detectors.base import HIGH, LOW, Finding, Transcript
from detectors.decode import decoded, tagged
from detectors.mention import is_mention
from detectors.normalize import View, clean, loose
from detectors.rulebook import Rule, load_rules
from detectors.suspicion import encoded_at, spelled_at

MAX_BATCH_CHARS = 1_048_576
"""Characters joined for one pass; bounds the memory of a batch of large prompts."""
_BREAK = "\n\x00\n"
SMUGGLED = "injection.hidden.tag-characters"
_SMUGGLED = re.compile("[\U000e0020-\U000e007e]{8,}")


@dataclass(frozen=True, slots=True)
class _Text:
    """One part under examination."""

    row: int
    turn: int
    role: str
    text: str


class PhraseDetector:
    """Bilingual phrase families (English, Chinese) over clean, loose and decoded views."""

    name = "phrases"

    def __init__(self, rules: Sequence[Rule] | None = None) -> None:
        self.rules = tuple(load_rules() if rules is None else rules)
        by_anchor: dict[str, list[int]] = {}
        for index, rule in enumerate(self.rules):
            for anchor in rule.anchors:
                by_anchor.setdefault(anchor, []).append(index)
        self._anchors = AnchorIndex({anchor: tuple(indices) for anchor, indices in by_anchor.items()})

    def screen(self, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
        """Findings per transcript, ordered by turn, then start."""
        found: list[list[Finding]] = [[] for _ in texts]
        batch: list[_Text] = []
        size = 0
        for row, transcript in enumerate(texts):
            for turn, part in enumerate(transcript):
                if part.role == "system" or not part.text:
                    continue
                batch.append(_Text(row, turn, part.role, part.text))
                size += len(batch[-1].text)
                if size >= MAX_BATCH_CHARS:
                    self._screen_batch(batch, found)
                    batch, size = [], 0
        self._screen_batch(batch, found)
        return [tuple(sorted(row, key=_order)) if row else () for row in found]

    def _screen_batch(self, batch: list[_Text], found: list[list[Finding]]) -> None:
        if not batch:
            return
        views: list[tuple[int, View | None, str]] = []
        for at, item in enumerate(batch):
            if item.text.isascii():
                views.append((at, None, item.text.lower()))
            else:
                view = clean(item.text)
                views.append((at, view, view.text))
                if view.starts is not None:
                    found[item.row] += _smuggled(item)
        starts, joined = _join(text for _, _, text in views)
        best: dict[tuple[int, int], Finding] = {}
        self._match(batch, views, starts, joined, best)
        if extra := self._further_views(batch, views, starts, joined):
            self._match(batch, extra, *_join(text for _, _, text in extra), best)
        for (at, _), finding in best.items():
            found[batch[at].row].append(finding)

    def _further_views(
        self,
        batch: list[_Text],
        views: list[tuple[int, View | None, str]],
        starts: list[int],
        joined: str,
    ) -> list[tuple[int, View | None, str]]:
        """Loose and decoded views of the few texts that look spelled out or encoded."""
        further: list[tuple[int, View | None, str]] = []
        shape = joined.encode("ascii", "replace")
        for index in sorted({bisect_right(starts, at) - 1 for at in spelled_at(shape, joined)}):
            at, view, text = views[index]
            if (read := loose(view or View("clean", text))) is not None:
                further.append((at, read, read.text))
        encoded = {bisect_right(starts, at) - 1 for at in encoded_at(shape, joined)}
        for index, (at, view, _) in enumerate(views):
            if view is not None and view.starts is not None and tagged(batch[at].text):
                encoded.add(index)
        for index in sorted(encoded):
            at = views[index][0]
            further += [(at, read, read.text) for read in decoded(batch[at].text)]
        return further

    def _match(
        self,
        batch: list[_Text],
        views: list[tuple[int, View | None, str]],
        starts: list[int],
        joined: str,
        best: dict[tuple[int, int], Finding],
    ) -> None:
        windows: dict[tuple[int, int], list[list[int]]] = {}
        for end, rules in self._anchors.find(joined):
            index = bisect_right(starts, end) - 1
            at = end - starts[index]
            role = batch[views[index][0]].role
            for number in rules:
                if role not in self.rules[number].roles:
                    continue
                reach = self.rules[number].reach
                spans = windows.setdefault((index, number), [])
                if spans and at - reach <= spans[-1][1]:
                    spans[-1][1] = at + reach
                else:
                    spans.append([max(0, at - reach), at + reach])
        for (index, number), spans in windows.items():
            at, view, text = views[index]
            finding = _worst(self.rules[number], view, text, spans, batch[at])
            known = best.get((at, number))
            if finding is not None and (known is None or finding.severity > known.severity):
                best[at, number] = finding


def _worst(rule: Rule, view: View | None, text: str, spans: Iterable[list[int]], item: _Text) -> Finding | None:
    """The rule's first use in the windows, else its first mention, else nothing."""
    mention: Finding | None = None
    for start, end in _matches(rule, text, spans):
        quoted = rule.guard and is_mention(text, start, end)
        if quoted and mention is not None:
            continue
        finding = _located(rule, view, start, end, item, quoted)
        if not quoted:
            return finding
        mention = finding
    return mention


def _matches(rule: Rule, text: str, spans: Iterable[list[int]]) -> Iterator[tuple[int, int]]:
    for low, high in spans:
        stop = high
        while stop < len(text) and stop < high + 32 and text[stop].isalnum():
            stop += 1
        held = text[low:stop].__contains__
        for reading in rule.readings:
            if all(any(map(held, needed)) for needed in reading.needs):
                for match in reading.pattern.finditer(text, low, stop):
                    if match.start() < match.end():
                        yield match.span()


def _located(rule: Rule, view: View | None, start: int, end: int, item: _Text, quoted: bool) -> Finding:
    """The finding for `[start, end)` of a view, in offsets of the original part."""
    name = "clean" if view is None else view.name
    if view is not None:
        span = view.span(start, end)
        start, end = span.start, span.end
    severity = LOW if quoted else rule.severity
    confidence = min(rule.confidence, 30) if quoted else rule.confidence
    return Finding(rule.id, severity, confidence, start, end, name, item.turn)


def _smuggled(item: _Text) -> list[Finding]:
    """One finding for the first run of tag characters that is longer than any flag's."""
    match = _SMUGGLED.search(item.text)
    return [Finding(SMUGGLED, HIGH, 95, match.start(), match.end(), "raw", item.turn)] if match else []


def _join(texts: Iterable[str]) -> tuple[list[int], str]:
    """Texts joined for one pass, with the offset at which each begins."""
    parts = list(texts)
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part) + len(_BREAK)
    return starts, _BREAK.join(parts)


def _order(finding: Finding) -> tuple[int, int, str]:
    return finding.turn, finding.start, finding.rule
