"""The words of every recogniser of personal data: an item with its place, and one reading of a text."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from detectors.text.plane import VARIED, from_utf16, utf16

SURE = 99
"""Score in percent of an item with a check digit or a format of its own."""
LIKELY = 90
"""Of an item that a word nearby names."""
GUESS = 70
"""Of an item by its looks alone."""
SECRET = "SECRET"  # noqa: S105 - a type's name, no secret
_STYLED = range(0x1D7CE, 0x1D800)
_DIGITS = {
    code: 0x30 + int(unicodedata.decimal(chr(code)))
    for code in (*VARIED, *_STYLED)
    if code > 0x7F and chr(code).isdecimal()
}
"""Digits of other scripts, which a number may be written with."""
_SAME = {
    **_DIGITS,
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys((0xA0, 0x2002, 0x2003, 0x2007, 0x2009, 0x202F, 0x3000), 0x20),
    **dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212, 0xFE63), 0x2D),
}
"""Digits, full-width forms, spaces and hyphens, each with the ASCII character that it reads as."""
_SCATTERED = "\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff"
_HIDDEN = re.compile(f"[{_SCATTERED}]")
MAX_HIDDEN = 4
"""So many characters that show nothing may stand between two of an item; more of them end it."""
_SHORT_RUN = re.compile(f"(?<![{_SCATTERED}])[{_SCATTERED}]{{1,{MAX_HIDDEN}}}(?![{_SCATTERED}])")
_TABLE = np.arange(0x10000, dtype=np.uint16)
for code, ascii_code in _SAME.items():
    if code < len(_TABLE):
        _TABLE[code] = ascii_code
_SHORT = 256
"""Code points below which looking each of them up is faster than the table's fixed cost."""
_OTHER_FORM = re.compile(f"[{re.escape(''.join([chr(code) for code in _SAME if code < len(_TABLE)]))}]")
_STYLED_DIGIT = re.compile(f"[{chr(_STYLED[0])}-{chr(_STYLED[-1])}]")
_READ = {chr(code): chr(read) for code, read in _SAME.items()}


class PiiItem(NamedTuple):
    """One item: type as in the detection data, half-open range of code points of the original, score in percent."""

    type: str
    start: int
    end: int
    score: int = SURE


class VisibleText(NamedTuple):
    """A text as it is looked at: `plain`, without the few characters in between that show nothing."""

    text: str
    places: array[int] | None
    """Where each character stands in the original, and behind the last one its length; None: at the same place."""

    def place(self, index: int) -> int:
        """The place of the character `index` in the original."""
        return index if self.places is None else self.places[index]

    def behind(self, index: int) -> int:
        """The end in the original of all before `index`, which is not 0."""
        return index if self.places is None else self.places[index - 1] + 1

    def first_at(self, place: int) -> int:
        """The first character that stands at `place` in the original or later."""
        return place if self.places is None else bisect_left(self.places, place)

    def item(self, item: PiiItem) -> PiiItem:
        """The item with its places in the original."""
        return item if self.places is None else item._replace(start=self.place(item.start), end=self.behind(item.end))


def shown(text: str) -> VisibleText:
    """The text as recognisers look at it."""
    read = plain(text)
    if read.isascii() or _HIDDEN.search(read) is None:
        return VisibleText(read, None)
    pieces: list[str] = []
    places = array("I")
    done = 0
    for run in _SHORT_RUN.finditer(read):
        pieces.append(read[done : run.start()])
        places.extend(range(done, run.start()))
        done = run.end()
    pieces.append(read[done:])
    places.extend(range(done, len(read) + 1))
    return VisibleText("".join(pieces), places)


def _read(other: re.Match[str]) -> str:
    return _READ[other[0]]


def plain(text: str) -> str:
    """The text with other forms of ASCII characters as ASCII; character for character, so offsets stay."""
    if text.isascii():
        return text
    # searched for by itself: with characters beyond the plane in its class, a pattern is many times slower
    if _STYLED_DIGIT.search(text):
        return text.translate(_SAME)
    if _OTHER_FORM.search(text) is None:
        return text
    if len(text) < _SHORT:
        return _OTHER_FORM.sub(_read, text)
    read = from_utf16(_TABLE[utf16(text)])
    # two lone surrogates side by side come back as one character
    return read if len(read) == len(text) else text.translate(_SAME)
