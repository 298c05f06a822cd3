"""Excerpts of real files as benign rows: people paste code, pages and tables, and prose alone teaches none of that.

They come from packages whose names fall to the half of which `make honest` measures nothing (`tests/honest`), under
licences that let excerpts be passed on; each names its package and licence.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from detectors.prompts.training.rows import LabelledText, drawing

FILE = Path(__file__).parent / "pasted.jsonl.xz"
SOURCE = "pasted"
PASTED = "pasted"
"""Subset of these rows."""
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


def pasted() -> Iterator[LabelledText]:
    """Each excerpt as a user's text, mostly with a question, and as a document."""
    decode = msgspec.json.Decoder(PastedExcerpt).decode
    for number, line in enumerate(lzma.decompress(FILE.read_bytes()).splitlines()):
        one, draw = decode(line), drawing(f"pasted/{number}")
        question = ASKED[int(draw.integers(len(ASKED)))]
        asked = (f"{question}\n\n{one.text}", f"{one.text}\n\n{question}", one.text)[int(draw.integers(3))]
        source = f"{SOURCE}/{one.kind}"
        language = "zh" if asked is not one.text and not question.isascii() else "en"
        yield LabelledText(asked, "benign", source, language, "user", PASTED)
        yield LabelledText(one.text, "benign", source, "en", "document", PASTED)
