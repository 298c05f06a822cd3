"""The examples made of labelled rows: short readings with weights.

A long text becomes its beginning and some windows. Of a document only windows count: those at the planted instruction
as attacks, the others as clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from detectors.prompts.training.disguise import scrambled, wrapped
from detectors.prompts.training.rows import LabelledText, drawing
from detectors.text.normalize import clean

WHOLE = 4_000
"""Characters of a long text that its beginning holds."""
USER_WINDOW, DOCUMENT_WINDOW = 400, 160
_WINDOWS = 4
_DOCUMENT_WINDOWS, _CLEAN_WINDOWS = 6, 24
"""Windows learned from a document with something planted, and from a clean one, whose worst of hundreds counts."""
SCRAMBLED, WRAPPED = 0.08, 0.03
"""Shares of short texts that are learned once more with shuffled letters, and as what an encoded text is wrapped in."""


class Example(NamedTuple):
    """One reading to learn from; `row` is the index of the row it was made of."""

    text: str
    attack: bool
    weight: float
    row: int


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
        planted = text.find(clean(row.payload).text) if row.payload else -1
        if len(text) <= DOCUMENT_WINDOW or (row.attack and planted < 0):
            yield Example(text[:WHOLE], row.attack, weight[index], index)
            continue
        count = _DOCUMENT_WINDOWS if row.attack else _CLEAN_WINDOWS
        spots = draw.integers(len(text) - DOCUMENT_WINDOW + 1, size=count).tolist()
        for start in spots:
            if planted < 0 or start + DOCUMENT_WINDOW < planted - 80 or start > planted + len(row.payload):
                yield Example(text[start : start + DOCUMENT_WINDOW], False, weight[index] * 3 / count, index)
        if planted >= 0:
            for before in (int(draw.integers(20)), int(draw.integers(20, 80))):
                start = max(0, planted - before)
                yield Example(text[start : start + DOCUMENT_WINDOW], True, weight[index] / 2, index)
