"""Texts of the labelled rows that the templates of families name: requests, orders, and sentences between them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from detectors.prompts.training.rows import LabelledText

_SHORT = 200
"""Characters of a harmful request that a template may name."""
ASKED = frozenset(("intent", "dialogue_turn", "tool_instruction"))
_ORDER = re.compile(
    r"(?:please |can you |could you |i need you to |i want you to )?(?:transfer|send|delete|set|turn|book|cancel|order"
    r"|add|remove|change|make|schedule|remind|call|text|find|get|give|pay|buy|reserve|share|create|update|unlock|open|close"
    r"|move|search|check|put|start|stop|increase|switch|erase|clear|report|freeze|block|fetch|look) "
)
_POLITE = r"(?:please |can you |could you |i need you to |i want you to )?"
_FIRST = re.compile(_POLITE + r"([a-z]{2,}) (?!you\b|i\b|we\b|they\b)")
_AFTER = re.compile(r"\b(?:to|please|can you|could you|don't|must) ([a-z]{2,})\b")
_WORD = re.compile(r"[a-z]{2,}")
_STARTS = 3
"""A word is an order's verb where it opens at least so many requests ..."""
_BARE = 5
"""... stands at least so often behind one of `_AFTER` ..."""
_OFTEN = 0.12
"""... and does either in so large a share of all its places."""
_ORDER_ZH = re.compile(
    "(?:请(?!问)|帮|给我|给出|替我|为我|写|列|翻译|编写|设计|生成|提供|推荐|解释|总结|分析|制定|创建|把)"
)
_NO_VERBS = frozenset(("also", "my", "please"))
_MAX_REQUEST = {"en": 160, "zh": 50}
ASKS_ZH = re.compile("[?？]|请问|如何|怎么|什么|哪些")
_SENTENCE = re.compile(r"(?:^|(?<=[.!?。！？\n]))\s?([A-Z][a-z0-9' ,;-]{30,90}[a-z]\.|[^\s。！？]{15,50}。)")
_ASKABLE = frozenset(("intent", "dialogue_turn", "tool_instruction", "chat", "general", "code_instruction"))
_NARRATIVE = {"en": "math", "zh": "dialogue_turn"}
_FLAT = frozenset("{}<>\"'?？\\")
"""Signs that a sentence between other people's words must not hold."""


class Borrowed(NamedTuple):
    """Texts of the training rows that templates name, by language: plainly harmful requests, ordinary orders of few
    verbs, sentences that tell something, and orders of any verb."""

    harm: Mapping[str, Sequence[str]] = {}
    request: Mapping[str, Sequence[str]] = {}
    told: Mapping[str, Sequence[str]] = {}
    asked: Mapping[str, Sequence[str]] = {}

    def words(self, language: str) -> dict[str, list[str]]:
        return {name: list(texts.get(language, ())) or ["..."] for name, texts in self._asdict().items()}


NOTHING = Borrowed()


def borrowed_of(rows: Sequence[LabelledText]) -> Borrowed:
    """The texts of the pack that the families' templates name."""
    harmful: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.label == "harmful" and len(row.text) < _SHORT:
            harmful[row.language].append(row.text)
    return Borrowed(harmful, requests(rows), sayings(rows), instructions(rows))


def requests(rows: Iterable[LabelledText]) -> dict[str, list[str]]:
    """By language, ordinary orders to an assistant out of benign user rows, in lower case and without a full stop."""
    found: dict[str, list[str]] = {}
    for row in rows:
        text = row.text.strip().rstrip(".!?").lower()
        if row.label == "benign" and row.subset in ASKED and len(text) < 200 and _ORDER.match(text):
            found.setdefault(row.language, []).append(text)
    return found


def instructions(rows: Sequence[LabelledText]) -> dict[str, list[str]]:
    """As `requests`, with any verb that opens them, in Chinese too: orders that a document may give."""
    plain = [row for row in rows if row.label == "benign" and row.role == "user" and row.subset in _ASKABLE]
    texts: dict[str, list[str]] = {language: [] for language in _MAX_REQUEST}
    for row in plain:
        if row.language == "en" or (row.language == "zh" and row.subset != "dialogue_turn"):
            texts[row.language].append(row.text.strip().rstrip(".!?。").lower())
    verbs = order_verbs(texts["en"])
    kept = {
        "en": [text for text in texts["en"] if (found := _FIRST.match(text)) and found[1] in verbs],
        "zh": [text for text in texts["zh"] if _ORDER_ZH.match(text) and not ASKS_ZH.search(text)],
    }
    return {
        name: [text for text in dict.fromkeys(found) if len(text) <= _MAX_REQUEST[name] and "\n" not in text]
        for name, found in kept.items()
    }


def order_verbs(texts: Iterable[str]) -> frozenset[str]:
    """The words that open requests and stand where a verb's bare form does."""
    opens, bare = Counter[str](), Counter[str]()
    places = Counter[str]()
    for text in texts:
        if found := _FIRST.match(text):
            opens[found[1]] += 1
        bare.update(_AFTER.findall(text))
        places.update(_WORD.findall(text))
    often = {word: count for word, count in opens.items() if count >= _STARTS and bare[word] >= _BARE}
    return frozenset(
        word for word, count in often.items()
        if word not in _NO_VERBS and bare[word] + count >= _OFTEN * places[word]
    )  # fmt: skip


def sayings(rows: Iterable[LabelledText]) -> dict[str, list[str]]:
    """By language, sentences that tell something, out of benign user rows: what an order is planted between."""
    found: dict[str, dict[str, None]] = {language: {} for language in _NARRATIVE}
    for row in rows:
        if row.label == "benign" and row.subset == _NARRATIVE.get(row.lang):
            sentences = (text.lower() for text in _SENTENCE.findall(row.text) if _FLAT.isdisjoint(text))
            found[row.lang].update(dict.fromkeys(sentences))
    return {language: list(texts) for language, texts in found.items()}
