"""Training rows written for this project: families of attacks, each with benign twins that use the same words.

A family file has `language`, `role`, `[words]` (named lists) and `[[family]]` tables; a template's `{name}` stands for
one entry of that list, entries may hold names themselves, and `{{` is a brace. `{harm}` is a plain harmful request of
the same language out of the training rows, `{request}` something ordinary that is asked of an assistant there.
"""

from __future__ import annotations

import re
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

import msgspec

from detectors.prompts.training.borrowed import NOTHING, Borrowed
from detectors.prompts.training.rows import LabelledText, drawing

_PLANTED = re.compile(r"\{(?:order|wrap|deed|asked|call)\}")
"""What of a document's template is planted in it."""
_MARK = re.compile("[\ue000\ue001]")
_SPLIT = ("order", "deed", "human", "act", "asked")
"""The lists whose entries halve by what is done, so that a test may use deeds that training did not."""
_VERB = re.compile(r"(?:please |can you |could you |i need you to |i want you to )?([a-z]+)")
_VERB_ZH = re.compile("(?:请|把|给|让|叫|别|在|为|向)[^，。]{0,3}")
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


def synthesise(
    seed: int, borrowed: Borrowed = NOTHING, share: float = 1.0, half: int | None = None
) -> list[LabelledText]:
    """Every family's attacks and as many twins, without doubles; of their count, `share`.

    `half`: only families of documents, with the entries of that half (0 or 1) of every list in `_SPLIT`.
    """
    folder = resources.files("detectors.prompts.training") / "families"
    rows: list[LabelledText] = []
    for file in sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name):
        family_file = msgspec.convert(tomllib.loads(file.read_text("utf-8")), _File)
        planted = family_file.role == "document"
        if half is not None and not planted:
            continue
        words = halved(family_file.words | borrowed.words(family_file.language), half)
        for family in family_file.family:
            draw = Draw(f"{seed}/{family.name}")
            attacks = family.templates
            if planted:
                attacks = [_PLANTED.sub("\ue000\\g<0>\ue001", each) for each in attacks]
            for label, templates in ((family.label, attacks), ("benign", family.twins)):
                for text in _texts(draw, templates, words, family, round(family.count * share)):
                    subset = family.name if label != "benign" else "twin"
                    payload = _MARK.sub("", text[text.find("\ue000") : text.rfind("\ue001")])
                    bare, source = _MARK.sub("", text), f"{SOURCE}/{family.name}"
                    rows.append(
                        LabelledText(bare, label, source, family_file.language, family_file.role, subset, payload)
                    )
    return rows


def halved(words: Mapping[str, Sequence[str]], half: int | None) -> dict[str, Sequence[str]]:
    """The lists, those in `_SPLIT` without the entries whose verb falls to the other half; frames around deeds stay."""
    if half is None:
        return dict(words)
    slots = [f"{{{name}}}" for name in _SPLIT]
    out = dict(words)
    for name in _SPLIT:
        entries = words.get(name, ())
        kept = [each for each in entries if any(slot in each for slot in slots) or _half(each) == half]
        out[name] = kept or entries
    return out


def _half(entry: str) -> int:
    """By the verb, so that no verb is on both sides."""
    found = _VERB.match(entry)
    verb = found[1] if found else _VERB_ZH.sub("", entry, count=1)[:2]
    return zlib.crc32(verb.encode()) >> 3 & 1


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
