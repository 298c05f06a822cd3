"""Labels that analysts gave to flagged requests, as one more source of rows: `make detectors DATA=FOLDER LABELS=FILE`.

FILE is what `sluice label list --json` prints, a list of objects (or one object a line), each with the `text` that was
labelled added: labels and sealed texts lie apart, and only who may read a text can join them. Every label is about a
text that was flagged, so benign ones teach as rows that resemble attacks and never say where a threshold lies.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from detectors.prompts.grams import hashed, join
from detectors.prompts.language import LANGUAGES, languages
from detectors.prompts.training.rows import ANALYST, LabelledText
from detectors.text.normalize import clean

SOURCE = "analysts"
MAX_BYTES = 256 << 20
MAX_LABELS = 5_000
"""Labels of each kind that are learned from, the first ones: `label list` gives the newest first."""
MAX_CHARS = 16_000
"""Characters of one text that are kept."""


class LabelError(ValueError):
    """The file of labels is wrong; the message names the file, the place and what was expected, never a text."""


class _Label(msgspec.Struct):
    label: Literal["attack", "benign"]
    text: str
    role: Literal["user", "document"] = "user"


def labelled(file: Path) -> list[LabelledText]:
    """Rows of source SOURCE, of equal texts the first. Raises OSError or LabelError."""
    if file.stat().st_size > MAX_BYTES:
        raise LabelError(f"{file}: expected at most {MAX_BYTES:,} bytes of labels, got more; give the newest ones")
    seen: set[str] = set()
    kept: Counter[str] = Counter()
    rows = []
    for each in _labels(file):
        text = each.text[:MAX_CHARS]
        if not text.strip() or text in seen or kept[each.label] == MAX_LABELS:
            continue
        seen.add(text)
        kept[each.label] += 1
        attack = "indirect_injection" if each.role == "document" else "injection"
        kind = attack if each.label == "attack" else "benign"
        rows.append(LabelledText(text, kind, SOURCE, _language(text), each.role, ANALYST))
    return rows


def _labels(file: Path) -> list[_Label]:
    raw = file.read_bytes()
    try:
        if raw.lstrip()[:1] == b"[":
            return msgspec.json.decode(raw, type=list[_Label])
        return [msgspec.json.decode(line, type=_Label) for line in raw.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise LabelError(
            f"{file}: expected the rows of `sluice label list --json` with the `text` of each added: {error}"
        ) from error


def _language(text: str) -> str:
    grams = hashed(join([clean(text).text]))
    return LANGUAGES[int(languages(grams.joined, grams.codes)[0])]
