"""Pieces of the developer pack's texts for the slots of applications that the trees learn from."""

from __future__ import annotations

from pathlib import Path

import msgspec

from detectors.jsonl import read_rows
from detectors.prompts.training.rows import drawing

PIECES = 600
"""Pieces of each sort."""
LEAST = 150


class _Row(msgspec.Struct):
    text: str
    label: str
    role: str = "user"
    subset: str = ""


def of_pack(file: Path) -> dict[str, list[str]]:
    """Passages, what people asked, code and changes to it, out of benign rows."""
    benign = [row for row in read_rows(file, _Row, "a labelled row") if row.label == "benign" and len(row.text) > LEAST]
    draw = drawing("pieces of applications")
    draw.shuffle(benign)
    passages = [row.text[:1400] for row in benign if row.role == "document"][:PIECES]
    code = [row.text[:900] for row in benign if "def " in row.text or "{\n" in row.text or ");" in row.text][:PIECES]
    asked = [row.text[:600] for row in benign if row.role == "user"][: 4 * PIECES]
    return {"passage": passages, "asked": asked, "code": code, "diff": [_change(text) for text in code]}


def _change(code: str) -> str:
    """The text as a change: every third line is taken out and comes back otherwise."""
    lines = code.splitlines()
    changed = [f"-{line}\n+{line.rstrip()}  # checked" if not n % 3 else f" {line}" for n, line in enumerate(lines)]
    return "\n".join(("--- a/app.py", "+++ b/app.py", f"@@ -1,{len(lines)} +1,{len(lines)} @@", *changed))
