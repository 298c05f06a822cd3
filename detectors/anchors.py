"""Where any of some hundred short strings stands in a long text, at a few nanoseconds a character.

Each anchor is known by the hash of the four of its characters, in a row, that are rarest (two or one if short). The
hashes of all places of the text are computed at once and looked up in a bit table, and only the few places that remain
are compared. A trie costs ten times as much here: its root alone has a child for every first character.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from detectors.grams import Codes, codes_of

_COMMON = {letter: rank for rank, letter in enumerate("zqjxkvbpygfwmucldrhsnioate ")}
"""Letters of English from rare to common; what is not among them is rarer."""
_BITS = 16
_SIZES = (1, 2, 4)
"""Lengths of gram that are looked for; each costs a pass, so three have to do."""
_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
"""Odd constants taken from xxHash; any odd ones would do."""


class AnchorIndex:
    """Finds every occurrence of every anchor; `anchors` maps a non-empty string to the numbers it stands for."""

    def __init__(self, anchors: Mapping[str, tuple[int, ...]]) -> None:
        self._tables: dict[int, npt.NDArray[np.bool_]] = {}
        self._by_gram: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
        for anchor, numbers in anchors.items():
            shift, gram = _rarest(anchor)
            table = self._tables.setdefault(len(gram), np.zeros(1 << _BITS, dtype=np.bool_))
            table[_hashes(codes_of(gram), len(gram))] = True
            self._by_gram.setdefault(gram, []).append((anchor, shift, numbers))

    def find(self, text: str, codes: Codes | None = None) -> list[tuple[int, tuple[int, ...]]]:
        """Offset of each occurrence's last character with its anchor's numbers, in order of offset.

        `codes` are the text's code points where they are known already.
        """
        codes = codes_of(text) if codes is None else codes
        found: list[tuple[int, tuple[int, ...]]] = []
        for length, table in self._tables.items():
            if len(codes) < length:
                continue
            for at in np.flatnonzero(table[_hashes(codes, length)]).tolist():
                for anchor, shift, numbers in self._by_gram.get(text[at : at + length], ()):
                    if at >= shift and text.startswith(anchor, at - shift):
                        found.append((at - shift + len(anchor) - 1, numbers))
        found.sort()
        return found


def _rarest(anchor: str) -> tuple[int, str]:
    """Where in the anchor its rarest gram begins, and the gram."""
    length = max(size for size in _SIZES if size <= len(anchor))
    grams = [(anchor[at : at + length], at) for at in range(len(anchor) - length + 1)]
    gram, at = min(grams, key=lambda gram: (sum(_COMMON.get(char, -1) for char in gram[0]), gram[1]))
    return at, gram


def _hashes(codes: npt.NDArray[np.uint32], length: int) -> npt.NDArray[np.uint32]:
    """One hash per place that has `length` characters left, by multiplication modulo 2**32, upper bits kept."""
    count = len(codes) - length + 1
    total = codes[:count] * np.uint32(_FACTORS[0])
    for place in range(1, length):
        total += codes[place : place + count] * np.uint32(_FACTORS[place])
    return total >> np.uint32(32 - _BITS)
