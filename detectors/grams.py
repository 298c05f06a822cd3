"""Hashed character and word n-grams of a whole batch at once, by array arithmetic.

Texts come joined with `BREAK` before, between and after them. Every place of the joined text gets one hash per
character order, every word one hash per word order. Words are known by their first and last letter and the unordered
rest, so a word with its inner letters shuffled keeps its hash. A gram that would reach over a break has index 0, which
stands for nothing: each text's grams depend on that text alone, whatever else is in the batch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BREAK = "\n\x00\n"
CHAR_BITS = (16, 18, 19)
"""Size of the tables for 2, 3 and 4 characters, as powers of two."""
WORD_BITS = (17, 18, 18, 18)
"""Size of the tables for one word, two, three, and two with one between them."""
SIZES = tuple(1 << bits for bits in CHAR_BITS + WORD_BITS)
OFFSETS = tuple(sum(SIZES[:place]) for place in range(len(SIZES)))
WIDTH = sum(SIZES)
"""Weights of one head."""
_TURN = np.uint32(0x9E3779B1)
_FIRST, _LAST, _REST = np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D), np.uint32(0x27D4EB2F)

Codes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]


class Joined(NamedTuple):
    """A batch as one string: text i is `text[starts[i]:ends[i]]`."""

    text: str
    starts: Places
    ends: Places


class Block(NamedTuple):
    """The grams of one order: `slots[k]` (0: none) is the gram at `places[k]`, or at place k where that is None."""

    order: int
    slots: Codes
    places: Places | None


def join(texts: Iterable[str]) -> Joined:
    parts = list(texts)
    lengths = np.fromiter(map(len, parts), dtype=np.intp, count=len(parts))
    ends = np.cumsum(lengths + len(BREAK))
    return Joined(BREAK.join(["", *parts, ""]), ends - lengths, ends)


def codes_of(text: str) -> Codes:
    """Code points; lone surrogates count as what they are."""
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
    for code in range(0x10000):
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


def blocks(joined: Joined, codes: Codes) -> Iterator[Block]:
    """Every order's grams; `codes` are those of `joined.text`."""
    plane = np.minimum(codes, np.uint32(0xFFFF))
    values = _VALUES.take(plane)
    breaks = joined.ends + 1
    breaks = np.concatenate((np.ones(1, dtype=np.intp), breaks))
    total = values
    for order, bits in enumerate(CHAR_BITS):
        total = total[:-1] * _TURN + values[order + 1 :]
        index = total >> np.uint32(32 - bits)
        for back in range(order + 2):
            index[np.minimum(np.maximum(breaks - back, 0), len(index) - 1)] = 0
        yield Block(order, index, None)
    yield from _word_blocks(plane, values, breaks)


def _word_blocks(plane: Codes, values: Codes, breaks: Places) -> Iterator[Block]:
    inside = _WORD.take(plane)
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[0::2], edges[1::2]
    sums = np.cumsum(values, dtype=np.uint32)
    keys = (sums[ends - 1] - sums[starts - 1]) * _REST + values[starts] * _FIRST + values[ends - 1] * _LAST
    keys ^= keys >> np.uint32(15)
    last = np.searchsorted(starts, breaks) - 1
    order = len(CHAR_BITS)
    yield Block(order, keys >> np.uint32(32 - WORD_BITS[0]), starts)
    two = keys[:-1] * _TURN + keys[1:]
    yield Block(order + 1, _within(two, last, 1, WORD_BITS[1]), starts[: len(two)])
    three = two[:-1] * _TURN + keys[2:]
    yield Block(order + 2, _within(three, last, 2, WORD_BITS[2]), starts[: len(three)])
    apart = (keys[:-2] * _FIRST + keys[2:]) * _TURN
    yield Block(order + 3, _within(apart, last, 2, WORD_BITS[3]), starts[: len(apart)])


def _within(hashes: Codes, last: Places, reach: int, bits: int) -> Codes:
    """Indices of the hashes, 0 where the gram would end in the next text; `last` are each text's last words."""
    index = hashes >> np.uint32(32 - bits)
    for back in range(reach):
        out = last - back
        index[out[(out >= 0) & (out < len(index))]] = 0
    return index
