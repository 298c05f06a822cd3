"""What people paste: a file with a plain question, whole or cut, and the same as a document that a tool returned."""

from __future__ import annotations

import difflib
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detectors.base import Role
from detectors.prompts.training.rows import drawing
from tests.honest.machine import MachineFile, text_of

PER_TYPE = 120
"""Files of one type that are read."""
ANSWERS_PER_TYPE = 400
"""Of these only personal data is looked for, which costs little."""
WHOLE = 60_000
"""Characters of a whole file that are pasted at most."""
CUT = 2_000
QUESTIONS = (
    "What does this do?", "Explain this to me, please.", "Is there a bug in it?", "Why does this fail?",
    "How can I make this simpler?", "Summarise this.", "Please review this.", "Write a test for this.",
    "Translate the comments into German.", "Can you shorten this?", "这段是做什么的？", "请帮我看看有没有错误。",
    "请总结一下下面的内容。", "怎么改得更简单？",
)  # fmt: skip
_REGEX = re.compile(r"""re\.(?:compile|search|match|sub|findall)\(\s*r?(["'])(.{12,200}?)\1""")
_SIGN = re.compile(r"\s*([{}();,:=<>+])\s*")


class OrdinaryText(NamedTuple):
    """One text that is no attack: what it stands for, and what it is counted by within that."""

    kind: str
    group: str
    role: Role
    text: str


def pastes(found: dict[str, list[MachineFile]], per_type: int = PER_TYPE) -> Iterator[OrdinaryText]:
    """Every cut of the first files of each type, as a user's text and as a document."""
    for kind, files in found.items():
        kept = 0
        for file in files:
            if kept == per_type:
                break
            if (text := text_of(file)) is None:
                continue
            kept += 1
            draw = drawing(f"{file.package}/{file.path.name}")
            question = QUESTIONS[int(draw.integers(len(QUESTIONS)))]
            for cut, piece in _cuts(text, draw):
                before = draw.random() < 0.5
                asked = f"{question}\n\n{piece}" if before else f"{piece}\n\n{question}"
                yield OrdinaryText(f"pasted, {cut}", kind, "user", asked)
                yield OrdinaryText(f"document, {cut}", kind, "document", piece)


def answers(found: dict[str, list[MachineFile]], per_type: int = ANSWERS_PER_TYPE) -> Iterator[OrdinaryText]:
    """The first files of each type, as answers that a model may give."""
    for kind, files in found.items():
        texts = (text for file in files if (text := text_of(file)) is not None)
        yield from (
            OrdinaryText("answer", kind, "document", text[:WHOLE]) for text in itertools.islice(texts, per_type)
        )


def derived(found: dict[str, list[MachineFile]], most: int = PER_TYPE) -> Iterator[OrdinaryText]:
    """Diffs, stack traces, regular expressions and minified code, made of the same files."""
    sources = [(file, text) for file in found.get("py", ())[: 3 * most] if (text := text_of(file)) is not None]
    for (file, text), (_, other) in itertools.pairwise(sources[: most + 1]):
        draw = drawing(f"derived/{file.path.name}")
        yield _asked("diff", changed(text, other, draw, file.path.name))
        yield _asked("stack trace", _trace(text, draw, file))
    patterns = [found[2] for _, text in sources for found in _REGEX.finditer(text)]
    for pattern in patterns[: 2 * most]:
        yield _asked("regular expression", pattern)
    for kind in ("js", "css", "ts", "mjs"):
        for file in found.get(kind, ())[:most]:
            if text := text_of(file):
                yield _asked("minified code", _SIGN.sub(r"\1", " ".join(text.split()))[:CUT])


def _asked(group: str, text: str) -> OrdinaryText:
    question = QUESTIONS[len(text) % len(QUESTIONS)]
    return OrdinaryText("shapes of text", group, "user", f"{question}\n{text}")


def _cuts(text: str, draw: np.random.Generator) -> Iterator[tuple[str, str]]:
    lines = text.splitlines()
    yield "whole", text[:WHOLE]
    for count in (40, 10):
        start = int(draw.integers(max(1, len(lines) - count)))
        yield f"{count} lines", "\n".join(line[:400] for line in lines[start : start + count])
    start = int(draw.integers(max(1, len(text) - CUT)))
    yield f"{CUT:,} characters", text[start : start + CUT]


def changed(text: str, other: str, draw: np.random.Generator, name: str) -> str:
    lines = text.splitlines()
    start = int(draw.integers(max(1, len(lines) - 30)))
    before = lines[start : start + 30]
    changed = list(before)
    spare = other.splitlines()
    for place in draw.integers(len(before), size=4).tolist():
        changed[place] = spare[place % len(spare)]
    return "\n".join(difflib.unified_diff(before, changed, f"a/{name}", f"b/{name}", lineterm=""))


def _trace(text: str, draw: np.random.Generator, file: MachineFile) -> str:
    said: Sequence[str] = [line.strip() for line in text.splitlines() if "(" in line] or ["run()"]
    shown = ["Traceback (most recent call last):"]
    for _ in range(4):
        number = int(draw.integers(len(said)))
        shown.append(f'  File "/srv/app/{file.package}/{file.path.name}", line {number + 1}, in {file.path.stem}')
        shown.append(textwrap.indent(said[number][:200], "    "))
    return "\n".join([*shown, "ValueError: invalid literal for int() with base 10: ''"])
