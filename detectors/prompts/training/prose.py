"""Prose out of benign user rows: without it a model of documents would know next to none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from detectors.prompts.training.borrowed import ASKED, ASKS_ZH
from detectors.prompts.training.rows import LabelledText

_INSTRUCTS = re.compile(
    r"question|answer|choose|option|according to|\bgiven\b|above|following|hint\b|\bwhich\b|write|summar|review:"
    r"|paraphras|translat|generat|sentence|\btext\b|paragraph|passage|dialogue|article|title|label|categor|classif|[a-z]\)"
    r"|\btask\b",
    re.IGNORECASE,
)
_INSTRUCTS_ZH = re.compile("请(?!问)|输出|回答|提取|抽取|以下|文本[:：]|样例|判断|返回|列出|给出|问题|分类")
_NARRATES = re.compile(r"(?:i|i'm|i've|my|it|the|that|this|there|what|who|how|why|is|are|when|where) ", re.IGNORECASE)
_PIECE = re.compile(r"[^.!?\n]*[.!?\n]+|[^.!?\n]+$")
_MIN_PASSAGE = 120
PASSAGE, PROSE = "passage", "prose"
"""Subsets of clean documents made of user rows: those long enough to say where a threshold lies, and the rest."""
TELLING = {
    "task_template": 300, "math": 100, "domain_finance": 1, "domain_medical": 1, "dialogue_turn": 1, "intent": 1
}  # fmt: skip
"""By subset of benign user rows that tell more than they ask: from how many characters on they serve as clean documents
too. Of templates only the inner half counts, where passages are; of English intents and turns what orders nothing."""


def prose(rows: Iterable[LabelledText]) -> Iterator[LabelledText]:
    """The prose in benign user rows, as clean documents."""
    for row in rows:
        if row.source == "openai/human-eval":
            yield LabelledText(row.text, row.label, row.source, row.lang, "document", PASSAGE)
        if row.role != "user" or row.label != "benign" or len(row.text) < TELLING.get(row.subset, len(row.text) + 1):
            continue
        if row.subset == "task_template":
            quarter = len(row.text) // 4
            if len(passage := _narrative(row.text[quarter:-quarter])) >= _MIN_PASSAGE:
                yield LabelledText(passage, row.label, row.source, row.lang, "document", PASSAGE)
        elif row.language == "zh":
            # what asks for a piece of work is a prompt and no document: it would place the threshold above every order
            if not _INSTRUCTS_ZH.search(row.text):
                kind = PROSE if row.subset in ASKED or ASKS_ZH.search(row.text) else PASSAGE
                yield LabelledText(row.text, row.label, row.source, row.lang, "document", kind)
        elif row.subset not in ASKED or _NARRATES.match(row.text):
            yield LabelledText(row.text, row.label, row.source, row.lang, "document", PROSE)


def _narrative(text: str) -> str:
    """The longest run of sentences or lines in which a task template asks for nothing."""
    best, run = "", ""
    for piece in _PIECE.findall(text):
        run = "" if _INSTRUCTS.search(piece) else run + piece
        best = max(best, run, key=len)
    return best.strip()
