"""Training rows written for this project: families of attacks, each with benign twins that use the same words.

A family file has `language`, `role`, `[words]` (named lists) and `[[family]]` tables; a template's `{name}` stands for
one entry of that list, entries may hold names themselves, and `{{` is a brace. `{harm}` is a plain harmful request of
the same language out of the training rows, `{request}` something ordinary that is asked of an assistant there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import NamedTuple

import msgspec

from detectors.training.rows import Row, drawing

_SLOT = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_DEPTH = 4
SOURCE = "families"


class _Family(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    label: str
    count: int
    templates: list[str]
    twins: list[str]
    sentences: tuple[int, int] = (1, 1)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    language: str
    role: str
    words: dict[str, list[str]]
    family: list[_Family]


class Draw:
    """Random numbers that depend on the key alone, drawn many at a time."""

    def __init__(self, key: str) -> None:
        self._source = drawing(key)
        self._held: list[int] = []

    def below(self, count: int) -> int:
        """One of 0 .. count - 1."""
        if not self._held:
            self._held = self._source.integers(1 << 62, size=4096).tolist()
        return self._held.pop() % count


class Borrowed(NamedTuple):
    """Texts of the training rows that templates name, by language: plainly harmful requests, ordinary orders, and
    sentences that tell something."""

    harm: Mapping[str, Sequence[str]] = {}
    request: Mapping[str, Sequence[str]] = {}
    told: Mapping[str, Sequence[str]] = {}

    def words(self, language: str) -> dict[str, list[str]]:
        return {name: list(texts.get(language, ())) or ["..."] for name, texts in self._asdict().items()}


NOTHING = Borrowed()


def synthesise(seed: int, borrowed: Borrowed = NOTHING, share: float = 1.0) -> list[Row]:
    """Every family's attacks and as many twins, without doubles; of their count, `share`."""
    folder = resources.files("detectors.training") / "families"
    rows: list[Row] = []
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name):
        held = msgspec.convert(tomllib.loads(file.read_text("utf-8")), _File)
        words = held.words | borrowed.words(held.language)
        for family in held.family:
            draw = Draw(f"{seed}/{family.name}")
            for label, templates in ((family.label, family.templates), ("benign", family.twins)):
                for text in _texts(draw, templates, words, family, round(family.count * share)):
                    subset = family.name if label != "benign" else "twin"
                    rows.append(Row(text, label, f"{SOURCE}/{family.name}", held.language, held.role, subset))
    return rows


def _texts(
    draw: Draw, templates: Sequence[str], words: Mapping[str, Sequence[str]], family: _Family, drawn: int
) -> Iterator[str]:
    seen: set[str] = set()
    low, high = family.sentences
    for _ in range(drawn):
        count = min(len(templates), low + draw.below(high - low + 1))
        chosen = list(dict.fromkeys([_one(draw, templates) for _ in range(count)]))
        # a name that a long text repeats is the same throughout
        fixed = dict(words) | {"name": [_one(draw, words["name"])]} if "name" in words else words
        text = " ".join(_fill(draw, template, fixed, _DEPTH) for template in chosen)
        if text not in seen:
            seen.add(text)
            yield text


def _one(draw: Draw, entries: Sequence[str]) -> str:
    return entries[draw.below(len(entries))]


def _fill(draw: Draw, template: str, words: Mapping[str, Sequence[str]], depth: int) -> str:
    def slot(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        entry = _one(draw, words[name])
        return entry if name in Borrowed._fields or not depth else _fill(draw, entry, words, depth - 1)

    return _SLOT.sub(slot, template)
