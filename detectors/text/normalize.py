"""Readings of a text for matching, each with a map back to the original offsets.

`clean` undoes what changes the look of a text but not its meaning: NFKC (UAX 15) with combining
marks dropped, case folding, invisible characters removed, letters of a foreign script that pass for
Latin ones inside a mixed-script word (UTS 39), full-width forms, runs of white space. `loose` (detectors.text.loose)
undoes leetspeak and spaced-out letters, `decoded` (detectors.text.decode) encodings and escapes.
Every view costs time linear in the text and decoding has fixed caps.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.base import Span
from detectors.text.plane import VARIED, from_utf16, utf16

MAX_RUNS = 16
"""Encoded runs looked at in one text; more than this is noise, and each costs a decode."""
MAX_FOLD = 4
"""Characters that one code point may become; U+FDFA would be 18, which makes a large text larger still."""
_MARKS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_MARK = re.compile(f"[{_MARKS}]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_LOOKALIKES = str.maketrans(
    "авекмнорстухіјѕԁԛԝӏԍьвпгαβεικνορτυχωϲϳһүғ",
    "abekmhopctyxijsdqwlgbbnrabeiknoptuxwcjhyf",
)
_PLAIN = {
    **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘꞯʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnopqrstuvwyz", strict=True)),
    **{chr(0x1F1E6 + place): chr(0x61 + place) for place in range(26)},
    "\u2800": " ",
}
"""Small capitals, the letters that flags are written with, and a Braille cell without dots, which NFKC leaves alone."""
_FOREIGN = re.compile("[\u0370-\u03ff\u0400-\u052f]")
_MIXED_WORD = re.compile("[a-z0-9\u0370-\u03ff\u0400-\u052f]+")


@dataclass(frozen=True, slots=True)
class TextView:
    """A reading of a text; `starts[i]`, `ends[i]` bound character i in the original, None: same."""

    name: str
    text: str
    starts: array[int] | None = None
    ends: array[int] | None = None

    def span(self, start: int, end: int) -> Span:
        """Original range that the non-empty range `[start, end)` of this view was read from."""
        if self.starts is None or self.ends is None:
            return Span(start, end)
        return Span(self.starts[start], self.ends[end - 1])


@lru_cache(maxsize=16_384)
def _fold(char: str) -> str:
    """The reading of one code point: "" for invisible ones and marks, " " for white space."""
    if _INVISIBLE.match(char) or _MARK.match(char):
        return ""
    if char.isspace():
        return " "
    if char in _PLAIN:
        return _PLAIN[char]
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold())
    if not folded.isascii() and folded[0] < "\u0530":
        folded = _MARK.sub("", unicodedata.normalize("NFD", folded))
    return folded[:MAX_FOLD]


class _Folding(NamedTuple):
    """Tables over UTF-16 units."""

    folds: npt.NDArray[np.uint16]
    """The unit that each folds to, where that is one."""
    closer: npt.NDArray[np.bool_]
    """Units at which a text needs a closer look."""
    otherwise: npt.NDArray[np.bool_]
    """Units that fold to none or to several."""
    special: re.Pattern[str]
    """The class of characters that fold otherwise."""


def _folding() -> _Folding:
    """The tables, made when the process starts.

    Beyond the basic plane only the blocks that NFKC or case folding changes are listed, so emoji and rare ideographs
    keep their place; their high surrogates are where to look closer.
    """
    folds = np.arange(0x10000, dtype=np.uint16)
    found = []
    for code in VARIED:
        piece = chr(code).lower() if code < 0x80 else _fold(chr(code))
        if len(piece) == 1 and piece < "\U00010000":
            folds[code] = ord(piece)
        else:
            found.append(code)
    closer = np.zeros(0x10000, dtype=np.bool_)
    closer[found] = True
    otherwise = closer.copy()
    otherwise[0xD800:0xE000] = otherwise[0xFFFF] = True
    closer[[0xD835, 0xD83C, 0xD83E, 0xD87E, 0xDB40, 0xDB41, 0xDB42, 0xDB43]] = True
    closer[0x0370:0x0530] = True
    listed = "".join(re.escape(chr(code)) for code in found)
    special = re.compile(
        f"[{listed}\U0001d400-\U0001d7ff\U0001f100-\U0001f2ff\U0001fbf0-\U0001fbf9"
        "\U0002f800-\U0002fa1f\U000e0000-\U000e0fff]"
    )
    return _Folding(folds, closer, otherwise, special)


_TABLES = _folding()
_fold.cache_clear()
_LOOK = np.uint16(0xFFFF)
"""No character; where `_MARKED` gives it, the text needs the closer look of `closer`."""
_MARKED = np.where(_TABLES.closer, _LOOK, _TABLES.folds)


def clean(text: str) -> TextView:
    """The `clean` view. Text in which each character folds to one keeps its offsets and its white space runs."""
    if text.isascii():
        return TextView("clean", text.lower())
    folded = _MARKED.take(utf16(text))
    if not (folded == _LOOK).any():
        return TextView("clean", from_utf16(folded))
    units = utf16(text)
    if _TABLES.special.search(text) is None:
        return TextView("clean", _unmix(from_utf16(_TABLES.folds.take(units))))
    return _clean_mapped(text)


def clean_all(texts: Sequence[str]) -> list[TextView]:
    """`clean` of each; what folds character by character, which is nearly all, is folded in one pass over the batch."""
    if len(texts) < 2:
        return [clean(text) for text in texts]
    joined = "\n".join(texts)
    units = utf16(joined)
    folded = _TABLES.folds.take(units)
    shown = from_utf16(folded)
    # one unit each: no code points beyond the plane, and no two halves that make one
    even = len(units) == len(joined) == len(shown)
    lengths = [len(text) if even else len(utf16(text)) for text in texts]
    starts = np.zeros(len(texts), dtype=np.intp)
    np.cumsum([length + 1 for length in lengths[:-1]], out=starts[1:])
    odd = np.logical_or.reduceat(_TABLES.closer.take(units), np.minimum(starts, len(units) - 1))
    views = []
    for text, start, length, closer in zip(texts, starts.tolist(), lengths, odd.tolist(), strict=True):
        if closer:
            views.append(clean(text))
        elif even:
            views.append(TextView("clean", shown[start : start + length]))
        else:
            views.append(TextView("clean", from_utf16(folded[start : start + length])))
    return views


def _clean_mapped(text: str) -> TextView:
    """Each code point as what it folds to, a run of white space as one space; each kind is folded once."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    plane = np.minimum(codes, np.uint32(0xFFFF))
    odd = np.flatnonzero(_TABLES.otherwise.take(plane))
    kinds, which = np.unique(codes[odd], return_inverse=True)
    pieces = [_fold(chr(kind)) for kind in kinds.tolist()]
    lengths = np.ones(len(codes), dtype=np.intp)
    lengths[odd] = np.array([len(piece) for piece in pieces], dtype=np.intp)[which]
    source = np.repeat(np.arange(len(codes)), lengths)
    out = _TABLES.folds.take(plane).astype("<u4")[source]
    first = np.cumsum(lengths) - lengths
    for place in range(MAX_FOLD):
        letters = np.array([ord(piece[place]) if place < len(piece) else 0 for piece in pieces], dtype=np.uint32)
        there = lengths[odd] > place
        out[first[odd[there]] + place] = letters[which[there]]
    return _spaced_once(out, source)


def _spaced_once(out: npt.NDArray[np.uint32], source: npt.NDArray[np.intp]) -> TextView:
    """The view of code points `out` that were read at `source`; a run of spaces becomes one that spans the run."""
    if not len(out):
        return TextView("clean", "", array("I"), array("I"))
    out[((out >= 0x09) & (out <= 0x0D)) | ((out >= 0x1C) & (out <= 0x1F))] = 0x20
    space = out == 0x20
    kept = np.flatnonzero(~(space & np.concatenate(([False], space[:-1]))))
    last = np.append(kept[1:], len(out)) - 1
    starts, ends = array("I"), array("I")
    starts.frombytes(source[kept].astype(np.uint32).tobytes())
    ends.frombytes((source[last] + 1).astype(np.uint32).tobytes())
    return TextView(
        "clean", _unmix(out[kept].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")), starts, ends
    )


def _unmix(text: str) -> str:
    """Latin letters for their lookalikes in words that mix Latin with Cyrillic or Greek."""
    if _FOREIGN.search(text) is None:
        return text

    def latin(word: str) -> str:
        return word.translate(_LOOKALIKES) if any("a" <= letter <= "z" for letter in word) else word

    return replaced(text, _FOREIGN, _MIXED_WORD, latin)


def replaced(text: str, sign: re.Pattern[str], word: re.Pattern[str], change: Callable[[str], str]) -> str:
    """The text with each longest run of `word`'s characters that holds a `sign` changed; others are not looked at."""
    pieces, done = [], 0
    match = sign.search(text)
    while match is not None:
        start = match.start()
        while start > done and word.match(text, start - 1, start):
            start -= 1
        whole = word.match(text, match.start())
        end = match.end() if whole is None else whole.end()
        pieces += [text[done:start], change(text[start:end])]
        done = end
        match = sign.search(text, end)
    return "".join([*pieces, text[done:]]) if pieces else text
