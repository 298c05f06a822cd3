"""A model's reading of documents that it could not learn: deeds that only the other half of the families orders, and
pages of a kind that was left out.

With every family held out, a model knows no twin and places thresholds above orders and twins alike; with none held
out, it has read the tests. Halves by verb lie between: the carriers and the frames are known, what is done is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from detectors.prompts.training.borrowed import Borrowed
from detectors.prompts.training.examples import document_examples
from detectors.prompts.training.folds import FAMILIES, Wide, learn, lesson, margins, quantised, scorer_of
from detectors.prompts.training.rows import LabelledText, weights
from detectors.prompts.training.synthesis import synthesise

UNSEEN = "other deeds"
"""What the sources of the rows that are drawn here begin with."""
_SHARE = 0.4
_CODE = 0
_LONG = 1
_MIDDLE = 2
_SHORT = 3
_SIGNS = 0.09
"""A page is code from this share of signs on."""
_PAGE, _PARAGRAPH = 3_000, 700
"""Another is long, or of middle length, from so many characters on."""
_READ = 6_000
_PAGES = frozenset(("document", "wrapped_instruction", "naive_instruction"))


def kind_of(row: LabelledText) -> int:
    """The kind of a page of the pack, or -1 for any other row: by what it holds but for what is planted."""
    if row.role != "document" or row.subset not in _PAGES:
        return -1
    text = row.text.replace(row.payload, "", 1)[:_READ]
    signs = sum(not (sign.isalnum() or sign.isspace()) for sign in text)
    if signs > _SIGNS * max(1, len(text)):
        return _CODE
    return _LONG if len(text) >= _PAGE else _MIDDLE if len(text) >= _PARAGRAPH else _SHORT


def unseen_deeds(
    rows: Sequence[LabelledText], borrowed: Borrowed, form: tuple[int, int], seed: int
) -> tuple[list[LabelledText], Wide, Wide]:
    """Rows of the families whose deeds the model that read them was not taught, with (whole, worst window)."""
    pack = [row for row in rows if row.role != "document" or not row.source.startswith(f"{FAMILIES}/")]
    tests: list[LabelledText] = []
    read: list[tuple[Wide, Wide]] = []
    for half in (0, 1):
        known = [*pack, *synthesise(seed, borrowed, half=half)]
        taught = lesson(document_examples(known, range(len(known)), weights(known), seed))
        asked = synthesise(seed + 1, borrowed, _SHARE, half=1 - half)
        scorer = scorer_of(*quantised(learn(taught, seed), *form))
        read.append(margins(scorer, [row.text for row in asked]))
        tests += [replace(row, source=row.source.replace(FAMILIES, UNSEEN, 1)) for row in asked]
    return tests, np.concatenate([whole for whole, _ in read]), np.concatenate([worst for _, worst in read])
