"""The labelled rows that a scorer is trained on, and how much each of them weighs."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from detectors.jsonl import read_rows

_BALANCE = 600
ANALYST = "analyst"
"""Subset of rows that a person labelled."""
EMPHASIS = {"hard_mention": 3.0, "hard_role_prompt": 2.0, "twin": 1.5, ANALYST: 2.0}
"""By subset of benign rows: those that resemble attacks count for more (trigger words alone must not decide)."""
DOUBTFUL = {"Aatrox103/SAP": 0.3, "cyberark/FuzzyAI": 0.5, "meta-llama/PurpleLlama(CyberSecEval)": 0.5}
"""By source of attack rows: whose label speaks of the topic more than of a technique."""
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


def drawing(key: str) -> np.random.Generator:
    """Random numbers that depend on the key alone."""
    return np.random.default_rng(zlib.crc32(key.encode()))


def read(file: Path) -> list[LabelledText]:
    """The rows of one file. Exits where a line is no row."""
    return list(read_rows(file, LabelledText, "a labelled row"))


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
