"""Hashed character and word n-grams of a whole batch at once, by array arithmetic.

Texts come joined with `BREAK` before, between and after them. Every place of the joined text gets one hash per
character order, every word one hash per word order. Words are known by their first and last letter and the unordered
rest, so a word with its inner letters shuffled keeps its hash. A gram that would reach over a break has index 0, which
stands for nothing: each text's grams depend on that text alone, and not on the rest of the batch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.text.plane import VARIED

BREAK = "\n\x00\n"
CHAR_BITS = (16, 18, 19)
"""Size of the tables for 2, 3 and 4 characters, as powers of two."""
WORD_BITS = (17, 18, 18, 18)
"""Size of the tables for one word, two, three, and two with one between them."""
SIZES = tuple(1 << bits for bits in CHAR_BITS + WORD_BITS)
OFFSETS = tuple(sum(SIZES[:place]) for place in range(len(SIZES)))
WIDTH = sum(SIZES)
"""Weights of one head."""
_NEXT = np.uint32(0x9E3779B1)
"""Factor of a hash when one more character or word joins it; these are the primes of xxHash (Collet 2012)."""
_FIRST = np.uint32(0x85EBCA77)
_LAST = np.uint32(0xC2B2AE3D)
_REST = np.uint32(0x27D4EB2F)

Codes = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


class Joined(NamedTuple):
    """A batch as one string: text i is `text[starts[i]:ends[i]]`."""

    text: str
    starts: Places
    ends: Places


class GramBlock(NamedTuple):
    """The grams of one order: `slots[k]` (0: none) is the gram at `places[k]`, or at place k where that is None."""

    order: int
    slots: Codes
    places: Places | None


def join(texts: Iterable[str]) -> Joined:
    parts = list(texts)
    if len(parts) == 1:
        start, end = len(BREAK), len(BREAK) + len(parts[0])
        return Joined(f"{BREAK}{parts[0]}{BREAK}", np.array((start,)), np.array((end,)))
    lengths = np.fromiter(map(len, parts), dtype=np.intp, count=len(parts))
    ends = np.cumsum(lengths + len(BREAK))
    return Joined(BREAK.join(["", *parts, ""]), ends - lengths, ends)


def codes_of(text: str) -> Codes | Bytes:
    """Code points, one byte each where all are ASCII; lone surrogates count as what they are."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _mixed(codes: Codes) -> Codes:
    """A well spread 32-bit value per code point (the finaliser of MurmurHash3, Appleby 2011)."""
    value = codes + np.uint32(0x51ED270B)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value ^= value >> np.uint32(shift)
        value *= np.uint32(factor)
    return value ^ (value >> np.uint32(16))


def _tables() -> tuple[Codes, npt.NDArray[np.bool_]]:
    """Per code point of the basic plane: its value, and whether it is part of a word.

    All digits count as one, so do all white space and all code points beyond the plane. Ideographs and kana are no part
    of words: there, the characters' grams do the work.
    """
    codes = np.arange(0x10000, dtype=np.uint32)
    words = np.zeros(0x10000, dtype=np.bool_)
    for code in VARIED:
        kind = unicodedata.category(chr(code))
        if kind == "Nd":
            codes[code] = 0x30
        elif code and (kind[0] == "Z" or chr(code).isspace()):
            codes[code] = 0x20
        words[code] = kind[0] in "LM" or kind == "Nd"
    for low, high in ((0x2E80, 0x3200), (0x3400, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0xFB00)):
        words[low:high] = False
    return _mixed(codes), words


_VALUES, _WORD = _tables()
_LAST_CODE = np.uint32(0xFFFF)


_ASCII, _ASCII_WORD = _VALUES[:0x80].copy(), _WORD[:0x80].copy()
_CHAR_SHIFTS = tuple(np.uint32(32 - bits) for bits in CHAR_BITS)
_CHAR_OFFSETS = tuple(np.uint32(offset) for offset in OFFSETS[: len(CHAR_BITS)])
_WORD_SHIFTS = np.array([[32 - bits] for bits in WORD_BITS], dtype=np.uint32)
_WORD_OFFSETS = np.array([[offset] for offset in OFFSETS[len(CHAR_BITS) :]], dtype=np.uint32)
_MIX = np.uint32(15)
_CUT = tuple((order, back) for order in range(len(CHAR_BITS)) for back in range(order + 2))
_CUT_ORDER = np.array([[order] for order, _ in _CUT], dtype=np.intp)
_CUT_BACK = np.array([[back] for _, back in _CUT], dtype=np.intp)


def char_grams(values: Codes) -> Codes:
    """(3, places): the index of each gram of 2, 3 and 4 characters into one head's weights; the last ones read 0."""
    count = len(values)
    grams = np.zeros((len(CHAR_BITS), count), dtype=np.uint32)
    total = values
    for order, (shift, offset) in enumerate(zip(_CHAR_SHIFTS, _CHAR_OFFSETS, strict=True)):
        if count < order + 2:
            break
        total = total[:-1] * _NEXT
        total += values[order + 1 :]
        row = grams[order, : count - order - 1]
        np.right_shift(total, shift, out=row)
        if order:
            row += offset
    return grams


def values_of(codes: Codes | Bytes) -> Codes:
    """One well spread value per character; codes of one byte are ASCII."""
    return _ASCII.take(codes) if codes.dtype == np.uint8 else _VALUES.take(np.minimum(codes, _LAST_CODE))


class Hashed(NamedTuple):
    """Every gram of a batch, as an index into one head's weights; 0 where it would reach into the next text.

    `chars[k, i]` is the gram of k + 2 characters at place i, `words[k, j]` the k-th kind of word gram that begins with
    word j, which stands at `starts[j]`.
    """

    joined: Joined
    codes: Codes | Bytes
    chars: Codes
    words: Codes
    starts: Places


def hashed(joined: Joined) -> Hashed:
    """All grams of the batch."""
    codes = codes_of(joined.text)
    values = values_of(codes)
    chars = char_grams(values)
    words, starts = _word_grams(codes, values)
    chars[:, :2] = 0
    if len(joined.ends) == 1:
        # nothing follows that a gram could reach into but the break itself
        for order in range(len(CHAR_BITS)):
            chars[order, -3 - order :] = 0
        return Hashed(joined, codes, chars, words, starts)
    breaks = joined.ends + 1
    chars[_CUT_ORDER, breaks - _CUT_BACK] = 0
    # a text's last word begins no pair, its last two no three
    ends = starts.searchsorted(breaks)
    words[1:, ends[ends >= 1] - 1] = 0
    words[2:, ends[ends >= 2] - 2] = 0
    return Hashed(joined, codes, chars, words, starts)


def _word_grams(codes: Codes | Bytes, values: Codes) -> tuple[Codes, Places]:
    """(4, words): each word gram's index, also of those that reach into the next text; the places of the words."""
    inside = _ASCII_WORD.take(codes) if codes.dtype == np.uint8 else _WORD.take(np.minimum(codes, _LAST_CODE))
    edges = (inside[1:] != inside[:-1]).nonzero()[0]
    before, last = edges[0::2], edges[1::2]
    sums = values.cumsum(dtype=np.uint32)
    keys = sums.take(last)
    keys -= sums.take(before)
    keys *= _REST
    starts = before + 1
    keys += values.take(starts) * _FIRST
    keys += values.take(last) * _LAST
    keys ^= keys >> _MIX
    count = len(keys)
    grams = np.zeros((len(WORD_BITS), count), dtype=np.uint32)
    grams[0] = keys
    if count > 1:
        two = keys[:-1] * _NEXT
        two += keys[1:]
        grams[1, :-1] = two
    if count > 2:
        np.multiply(two[:-1], _NEXT, out=grams[2, :-2])
        np.multiply(keys[:-2], _FIRST, out=grams[3, :-2])
        grams[2:, :-2] += keys[2:]
        grams[3] *= _NEXT
    grams >>= _WORD_SHIFTS
    grams += _WORD_OFFSETS
    return grams, starts


def blocks(grams: Hashed) -> Iterator[GramBlock]:
    """Every order's grams by themselves."""
    for order, row in enumerate((*grams.chars, *grams.words)):
        places = grams.starts if order >= len(CHAR_BITS) else None
        yield GramBlock(order, np.where(row > 0, row - np.uint32(OFFSETS[order]), np.uint32(0)), places)
