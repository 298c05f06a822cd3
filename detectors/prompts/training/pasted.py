"""Excerpts of real files as benign rows: people paste code, pages and tables, and prose alone teaches none of that.

They come from packages whose names fall to the half of which `make honest` measures nothing (`tests/honest`), under
licences that let excerpts be passed on; each names its package and licence.
"""

from __future__ import annotations

import lzma
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from detectors.prompts.training.rows import LabelledText, drawing

FILE = Path(__file__).parent / "pasted.jsonl.xz"
SOURCE = "pasted"
PASTED, PASTED_WORST = "pasted", "pasted_worst"
"""Subsets of these rows: what any file holds, and the worst place of one."""
ASKED = (
    "what is wrong here?", "explain this code", "Refactor this please.", "I get an error in these lines, why?",
    "Add comments.", "Rewrite this so that it is easier to read", "What does this file configure?",
    "Convert it to another language.", "帮我解释这段代码", "这里为什么报错？", "把它改写得更清楚一些",
    "Find the mistake:", "Tell me what this page says.", "fix this",
)  # fmt: skip


class PastedExcerpt(NamedTuple):
    """Some hundred characters of a file; `kind` is its ending."""

    kind: str
    package: str
    licence: str
    text: str
    worst: bool = False
    """It was taken where version 8 of the scorer saw most in its file, so it stands for no ordinary file."""


LONG = 12
"""Excerpts of one package that make a long paste."""
_DOCUMENTS = 2
"""Every second excerpt is a document too."""


def excerpts() -> list[PastedExcerpt]:
    decode = msgspec.json.Decoder(PastedExcerpt).decode
    return [decode(line) for line in lzma.decompress(FILE.read_bytes()).splitlines()]


def pasted() -> Iterator[LabelledText]:
    """Each excerpt as a user's text, mostly with a question, some as documents, and many of a package as one text."""
    held = excerpts()
    for number, one in enumerate(held):
        yield _asked(one.text, one.package, f"pasted/{number}", PASTED_WORST if one.worst else PASTED)
        if number % _DOCUMENTS == 0:
            yield LabelledText(
                one.text, "benign", f"{SOURCE}/{one.package}", "en", "document", PASTED_WORST if one.worst else PASTED
            )
    for text, package in long_pastes(held):
        yield _asked(text, package, f"pasted/{package}/{len(text)}", PASTED)


def long_pastes(held: Sequence[PastedExcerpt]) -> Iterator[tuple[str, str]]:
    """(text, package) of what is as long as a whole file: LONG excerpts of one package and type after one another."""
    by: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in held:
        if not one.worst:
            by[one.package, one.kind].append(one.text)
    for (package, _), texts in by.items():
        for start in range(0, len(texts) - LONG + 1, LONG):
            yield "\n".join(texts[start : start + LONG]), package


def _asked(text: str, package: str, key: str, subset: str) -> LabelledText:
    draw = drawing(key)
    question = ASKED[int(draw.integers(len(ASKED)))]
    asked = (f"{question}\n\n{text}", f"{text}\n\n{question}", text)[int(draw.integers(3))]
    language = "zh" if asked is not text and not question.isascii() else "en"
    return LabelledText(asked, "benign", f"{SOURCE}/{package}", language, "user", subset)
