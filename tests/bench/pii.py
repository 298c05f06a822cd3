"""Personal data: processor time per 1,000 characters, against Presidio's patterns in the same run, and the bars.

The rows are the developer pack's; the environment's DATA names the folder that holds `detection`. Ordinary texts are
the benign prompts of its validation rows, joined and cut to TEXT characters; dense ones are its short rows of personal
data as they are, of which nearly each holds an item.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from detectors.personal import CONTEXTUAL, STRUCTURED
from detectors.pii import find, redact
from detectors.pii.evaluate import ItemTally, cost, tallies
from detectors.pii.evaluate import MarkedText as Text
from tests.bench.rows import Measurement

TEXT, ROUNDS, MOST = 1_000, 3, 200
"""Code points of an ordinary text; runs, of which the best counts; ordinary texts of a language."""
_GOAL_MS = 0.2


class _Prompt(msgspec.Struct):
    text: str
    label: str
    lang: str


def measure() -> list[Measurement]:
    """Milliseconds per 1,000 characters, precision, recall and F1; no rows where the pack is not there."""
    pack = Path(os.environ.get("DATA", "")) / "detection"
    if not (pack / "validation.jsonl").is_file():
        print("pii: not measured, set DATA to the folder that holds detection/validation.jsonl", file=sys.stderr)
        return []
    prompts = msgspec.json.Decoder(_Prompt).decode_lines((pack / "validation.jsonl").read_bytes())
    marked = msgspec.json.Decoder(Text).decode_lines((pack / "pii" / "validation.jsonl").read_bytes())
    rows: list[Measurement] = []
    for name, lang in (("English", "en"), ("Chinese", "zh")):
        rows += _costs(f"ordinary {name}, {TEXT} characters each", _ordinary(prompts, lang), _GOAL_MS)
    rows += _costs("rows dense with items", marked, None)
    return rows + _bars(marked)


def _ordinary(prompts: list[_Prompt], lang: str) -> list[Text]:
    joined = "\n".join(row.text for row in prompts if row.label == "benign" and row.lang == lang)
    return [Text(joined[at : at + TEXT], ()) for at in range(0, min(len(joined), MOST * TEXT), TEXT)]


def _costs(load: str, texts: list[Text], goal: float | None) -> list[Measurement]:
    rows = [
        Measurement("pii", "all items", load, _best(texts, find), "ms/1,000", goal, "<="),
        Measurement("pii", "structured items", load, _best(texts, redact), "ms/1,000", goal, "<="),
    ]
    theirs = _presidio()
    if theirs is None:
        print(f"pii: no baseline for {load}, it needs the extra presidio", file=sys.stderr)
    else:
        rows.append(Measurement("pii", "presidio's patterns", load, _best(texts, theirs), "ms/1,000"))
    return rows


def _best(texts: list[Text], job: Callable[[str], object]) -> float:
    return min(cost(texts, job) for _ in range(ROUNDS))


def _presidio() -> Callable[[str], object] | None:
    try:
        from detectors.pii.presidio import Presidio
    except ImportError:
        return None
    return Presidio().find


def _bars(marked: list[Text]) -> list[Measurement]:
    found = tallies(marked)
    structured = sum((found[kind] for kind in STRUCTURED), ItemTally())
    contextual = sum((found[kind] for kind in CONTEXTUAL), ItemTally())
    load = f"{len(marked)} held-out rows of the pack"
    return [
        Measurement("pii", "structured, precision", load, structured.precision, "", 0.99),
        Measurement("pii", "structured, recall", load, structured.recall, "", 0.99),
        Measurement("pii", "contextual, F1", load, contextual.f1, "", 0.85),
    ]
