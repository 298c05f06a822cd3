"""Where any of some hundred short strings stands in a long text, at a few nanoseconds a character.

Each anchor is known by the hash of its first characters (four, or as many as it has); the hashes of all places of the
text are computed at once and looked up in a bit table, and only the few places that remain are compared. A trie
costs ten times as much here: its root alone has a child for every first character.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_BITS = 16
_FACTORS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
"""Odd constants taken from xxHash; any odd ones would do."""


class AnchorIndex:
    """Finds every occurrence of every anchor; `anchors` maps a non-empty string to the numbers it stands for."""

    def __init__(self, anchors: Mapping[str, tuple[int, ...]]) -> None:
        self._tables: dict[int, npt.NDArray[np.bool_]] = {}
        self._by_gram: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
        for anchor, numbers in anchors.items():
            gram = anchor[: len(_FACTORS)]
            table = self._tables.setdefault(len(gram), np.zeros(1 << _BITS, dtype=np.bool_))
            table[_hashes(_codes(gram), len(gram))] = True
            self._by_gram.setdefault(gram, []).append((anchor, numbers))

    def find(self, text: str) -> list[tuple[int, tuple[int, ...]]]:
        """Offset of each occurrence's last character with its anchor's numbers, in order of offset."""
        codes = _codes(text)
        found: list[tuple[int, tuple[int, ...]]] = []
        for length, table in self._tables.items():
            if len(codes) < length:
                continue
            for at in np.flatnonzero(table[_hashes(codes, length)]).tolist():
                for anchor, numbers in self._by_gram.get(text[at : at + length], ()):
                    if text.startswith(anchor, at):
                        found.append((at + len(anchor) - 1, numbers))
        found.sort()
        return found


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _hashes(codes: npt.NDArray[np.uint32], length: int) -> npt.NDArray[np.uint32]:
    """One hash per place that has `length` characters left, by multiplication modulo 2**32, upper bits kept."""
    count = len(codes) - length + 1
    total = codes[:count] * np.uint32(_FACTORS[0])
    for place in range(1, length):
        total += codes[place : place + count] * np.uint32(_FACTORS[place])
    return total >> np.uint32(32 - _BITS)
