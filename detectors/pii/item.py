"""What every recogniser of personal data speaks: an item with its place, and one reading of a text."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from detectors.plane import from_utf16, utf16

SURE, LIKELY, GUESS = 99, 90, 70
"""Scores in percent: a check digit or a format of its own; a word nearby that names it; its looks alone."""
SECRET = "SECRET"  # noqa: S105 - a type's name, no secret
_SAME = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys((0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000), 0x20),
    **dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212, 0xFE63), 0x2D),
}
"""Full-width forms, spaces and hyphens, each with the ASCII character that it reads as."""
_TABLE = np.arange(0x10000, dtype=np.uint16)
_TABLE[list(_SAME)] = list(_SAME.values())
_SHORT = 256
"""Code points below which looking each of them up is faster than the table's fixed cost."""
_OTHER_FORM = re.compile(f"[{re.escape(''.join(map(chr, _SAME)))}]")
_READ = {chr(code): chr(read) for code, read in _SAME.items()}


class Item(NamedTuple):
    """One item: type as in the detection data, half-open range of code points of the original, score in percent."""

    type: str
    start: int
    end: int
    score: int = SURE


def _read(other: re.Match[str]) -> str:
    return _READ[other[0]]


def plain(text: str) -> str:
    """The text with other forms of ASCII characters as ASCII; character for character, so offsets stay."""
    if text.isascii() or _OTHER_FORM.search(text) is None:
        return text
    if len(text) < _SHORT:
        return _OTHER_FORM.sub(_read, text)
    read = from_utf16(_TABLE[utf16(text)])
    # two lone surrogates side by side come back as one character
    return read if len(read) == len(text) else text.translate(_SAME)
