"""Word lists, all read when this is imported: the process that reads strangers' texts can open no file afterwards.

Lines that begin with `#` say where a list comes from and under which licence.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources


@cache
def words(name: str) -> frozenset[str]:
    """The lines of list `name`."""
    return frozenset(_LISTS[name])


@cache
def characters(name: str) -> str:
    """The characters of list `name`, in its order."""
    return "".join(_LISTS[name])


def simplified(text: str) -> str:
    """The text with traditional characters of names and addresses as simplified ones, character for character."""
    return text.translate(_TRADITIONAL) if _ANY_TRADITIONAL.search(text) else text


def _read(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


_LISTS = {
    file.name.removesuffix(".txt"): _read(file.read_text("utf-8"))
    for file in resources.files("detectors.pii.lexicon").iterdir()
    if file.name.endswith(".txt")
}
_TRADITIONAL = {ord(pair[0]): pair[1] for pair in _LISTS["zh_traditional"]}
_ANY_TRADITIONAL = re.compile(f"[{''.join(map(chr, _TRADITIONAL))}]")
