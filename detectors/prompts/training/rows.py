"""The labelled rows a scorer is trained on, and the examples made of them: short readings with weights.

A long text becomes its beginning and some windows. Of a document only windows count: those at the planted instruction
as attacks, the others as clean.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.prompts.training.disguise import scrambled, wrapped
from detectors.text.normalize import clean

WHOLE = 4_000
"""Characters of a long text that its beginning holds."""
USER_WINDOW, DOCUMENT_WINDOW = 400, 160
_WINDOWS = 4
_DOCUMENT_WINDOWS, _CLEAN_WINDOWS = 6, 24
"""Windows learned from a document with something planted, and from a clean one, whose worst of hundreds counts."""
_ASKED = frozenset(("intent", "dialogue_turn", "tool_instruction"))
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
_INSTRUCTS = re.compile(
    r"question|answer|choose|option|according to|\bgiven\b|above|following|hint\b|\bwhich\b|write|summar|review:"
    r"|paraphras|translat|generat|sentence|\btext\b|paragraph|passage|dialogue|article|title|label|categor|classif|[a-z]\)"
    r"|\btask\b",
    re.IGNORECASE,
)
_INSTRUCTS_ZH = re.compile("请(?!问)|输出|回答|提取|抽取|以下|文本[:：]|样例|判断|返回|列出|给出|问题|分类")
_ASKS_ZH = re.compile("[?？]|请问|如何|怎么|什么|哪些")
_TOLD = re.compile(r"(?:i|i'm|i've|my|it|the|that|this|there|what|who|how|why|is|are|when|where) ", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:^|(?<=[.!?。！？\n]))\s?([A-Z][a-z0-9' ,;-]{30,90}[a-z]\.|[^\s。！？]{15,50}。)")
_PIECE = re.compile(r"[^.!?\n]*[.!?\n]+|[^.!?\n]+$")
_MIN_PASSAGE = 120
_ASKABLE = frozenset(("intent", "dialogue_turn", "tool_instruction", "chat", "general", "code_instruction"))
_TELLING_SUBSET = {"en": "math", "zh": "dialogue_turn"}
_FLAT = frozenset("{}<>\"'?？\\")
"""Signs that a sentence between other people's words must not hold."""
SCRAMBLED, WRAPPED = 0.08, 0.03
"""Shares of short texts that are learned once more with shuffled letters, and as what an encoded text is wrapped in."""
_BALANCE = 600
ANALYST = "analyst"
"""Subset of rows that a person labelled."""
EMPHASIS = {"hard_mention": 3.0, "hard_role_prompt": 2.0, "twin": 1.5, ANALYST: 2.0}
"""By subset of benign rows: those that resemble attacks count for more (trigger words alone must not decide)."""
DOUBTFUL = {"Aatrox103/SAP": 0.3, "cyberark/FuzzyAI": 0.5, "meta-llama/PurpleLlama(CyberSecEval)": 0.5}
"""By source of attack rows: whose label speaks of the topic more than of a technique."""
PASSAGE, PROSE = "passage", "prose"
"""Subsets of clean documents made of user rows: those long enough to say where a threshold lies, and the rest."""
TELLING = {
    "task_template": 300, "math": 100, "domain_finance": 1, "domain_medical": 1, "dialogue_turn": 1, "intent": 1
}  # fmt: skip
"""By subset of benign user rows that tell more than they ask: from how many characters on they serve as clean documents
too. Of templates only the inner half counts, where passages are; of English intents and turns what orders nothing."""
HARMFUL_WEIGHT = 0.25
"""A plainly harmful request is no attack on instructions; it teaches that topics are not techniques."""


class LabelledText(msgspec.Struct):
    """One labelled text, as in the data pack."""

    text: str
    label: str
    source: str
    lang: str
    role: str = "user"
    subset: str = ""
    payload: str = ""

    @property
    def attack(self) -> bool:
        return self.label not in ("benign", "harmful")

    @property
    def language(self) -> str:
        return self.lang if self.lang in ("en", "zh") else "other"


class Example(NamedTuple):
    """One reading to learn from; `row` is the index of the row it was made of."""

    text: str
    attack: bool
    weight: float
    row: int


def drawing(key: str) -> np.random.Generator:
    """Random numbers that depend on the key alone."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def read(file: Path) -> list[LabelledText]:
    """The rows of one file. Raises OSError, or msgspec.DecodeError where a line is no such row."""
    decode = msgspec.json.Decoder(LabelledText).decode
    return [decode(line) for line in file.read_bytes().splitlines()]


def prose(rows: Iterable[LabelledText]) -> Iterator[LabelledText]:
    """Prose out of benign user rows, as clean documents: without it a fold would know next to no prose."""
    for row in rows:
        if row.source == "openai/human-eval":
            yield LabelledText(row.text, row.label, row.source, row.lang, "document", PASSAGE)
        if row.role != "user" or row.label != "benign" or len(row.text) < TELLING.get(row.subset, len(row.text) + 1):
            continue
        if row.subset == "task_template":
            if len(told := _told(row.text[len(row.text) // 4 : -(len(row.text) // 4)])) >= _MIN_PASSAGE:
                yield LabelledText(told, row.label, row.source, row.lang, "document", PASSAGE)
        elif row.language == "zh":
            # what asks for a piece of work is a prompt and no document: it would place the threshold above every order
            if not _INSTRUCTS_ZH.search(row.text):
                kind = PROSE if row.subset in _ASKED or _ASKS_ZH.search(row.text) else PASSAGE
                yield LabelledText(row.text, row.label, row.source, row.lang, "document", kind)
        elif row.subset not in _ASKED or _TOLD.match(row.text):
            yield LabelledText(row.text, row.label, row.source, row.lang, "document", PROSE)


def _told(text: str) -> str:
    """The longest run of sentences or lines in which a task template asks for nothing."""
    best, run = "", ""
    for piece in _PIECE.findall(text):
        run = "" if _INSTRUCTS.search(piece) else run + piece
        best = max(best, run, key=len)
    return best.strip()


def requests(rows: Iterable[LabelledText]) -> dict[str, list[str]]:
    """By language, ordinary orders to an assistant out of benign user rows, in lower case and without a full stop."""
    found: dict[str, list[str]] = {}
    for row in rows:
        text = row.text.strip().rstrip(".!?").lower()
        if row.label == "benign" and row.subset in _ASKED and len(text) < 200 and _ORDER.match(text):
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
        "zh": [text for text in texts["zh"] if _ORDER_ZH.match(text) and not _ASKS_ZH.search(text)],
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
    found: dict[str, dict[str, None]] = {language: {} for language in _TELLING_SUBSET}
    for row in rows:
        if row.label == "benign" and row.subset == _TELLING_SUBSET.get(row.lang):
            sentences = (text.lower() for text in _SENTENCE.findall(row.text) if _FLAT.isdisjoint(text))
            found[row.lang].update(dict.fromkeys(sentences))
    return {language: list(texts) for language, texts in found.items()}


def weights(rows: Sequence[LabelledText]) -> list[float]:
    """Balanced by source, label and language, hard negatives raised, doubtful labels lowered."""
    sizes = Counter((row.source, row.label, row.language) for row in rows)
    out = []
    for row in rows:
        weight = min(1.0, (_BALANCE / sizes[row.source, row.label, row.language]) ** 0.5)
        if row.attack:
            weight *= DOUBTFUL.get(row.source, 1.0)
        elif row.label == "harmful":
            weight *= HARMFUL_WEIGHT
        else:
            weight *= EMPHASIS.get(row.subset, 1.0)
        out.append(weight)
    return out


def user_examples(
    rows: Sequence[LabelledText], chosen: Iterable[int], weight: Sequence[float], seed: int
) -> Iterator[Example]:
    """Of each chosen row the whole text; of a long one also windows, which share its weight."""
    for index in chosen:
        row, draw = rows[index], drawing(f"{seed}/{index}")
        text = clean(row.text[: 4 * WHOLE]).text
        if len(text) <= USER_WINDOW:
            yield Example(text, row.attack, weight[index], index)
            chance = float(draw.random())
            if chance < SCRAMBLED:
                yield Example(scrambled(text, draw), row.attack, weight[index], index)
            elif chance > 1 - WRAPPED:
                yield Example(wrapped(text, draw), False, weight[index], index)
            continue
        yield Example(text[:WHOLE], row.attack, weight[index] / 2, index)
        count = min(_WINDOWS, len(text) // USER_WINDOW)
        for _ in range(count):
            start = int(draw.integers(len(text) - USER_WINDOW + 1))
            piece = text[start : start + USER_WINDOW]
            yield Example(piece, row.attack, weight[index] / 2 / count, index)


def document_examples(
    rows: Sequence[LabelledText], chosen: Iterable[int], weight: Sequence[float], seed: int
) -> Iterator[Example]:
    """Windows of documents, labelled by what they hold; user attacks and tasks as if planted, which they could be."""
    for index in chosen:
        row, draw = rows[index], drawing(f"{seed}/{index}")
        text = clean(row.text[: 4 * WHOLE]).text
        if row.attack and row.role != "document":
            if len(text) <= USER_WINDOW:
                yield Example(text[:DOCUMENT_WINDOW], True, weight[index] * 0.3, index)
            continue
        at = text.find(clean(row.payload).text) if row.payload else -1
        if len(text) <= DOCUMENT_WINDOW or (row.attack and at < 0):
            yield Example(text[:WHOLE], row.attack, weight[index], index)
            continue
        count = _DOCUMENT_WINDOWS if row.attack else _CLEAN_WINDOWS
        spots = draw.integers(len(text) - DOCUMENT_WINDOW + 1, size=count).tolist()
        for start in spots:
            if at < 0 or start + DOCUMENT_WINDOW < at - 80 or start > at + len(row.payload):
                yield Example(text[start : start + DOCUMENT_WINDOW], False, weight[index] * 3 / count, index)
        if at >= 0:
            for before in (int(draw.integers(20)), int(draw.integers(20, 80))):
                start = max(0, at - before)
                yield Example(text[start : start + DOCUMENT_WINDOW], True, weight[index] / 2, index)
