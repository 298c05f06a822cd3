"""Search for some hundred short strings in a long text at once, at a few nanoseconds a character.

Each anchor is known by the four of its characters, in a row, that are rarest (two if short; one is simply searched).
The scorer's grams of all places are looked up in a bit table, and only the few places that remain are compared. A trie
costs ten times as much here: its root alone has a child for every first character.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from detectors.prompts.grams import OFFSETS, SIZES, Codes, char_grams, codes_of, values_of

_COMMON = {letter: rank for rank, letter in enumerate("zqjxkvbpygfwmucldrhsnioate ")}
"""Letters of English from rare to common; what is not among them is rarer."""
_SIZES = (1, 2, 4)
"""Lengths of gram that are looked for."""
_COARSE = 3
"""Bits of a gram of four that are left out, so that its table stays in the cache."""


class AnchorIndex:
    """Finds every occurrence of every anchor; `anchors` maps a non-empty string to the numbers it stands for."""

    def __init__(self, anchors: Mapping[str, tuple[int, ...]]) -> None:
        self._pairs = np.zeros(SIZES[0], dtype=np.bool_)
        self._fours = np.zeros(OFFSETS[2] + SIZES[2] >> _COARSE, dtype=np.bool_)
        self._signs = {anchor: numbers for anchor, numbers in anchors.items() if len(anchor) == 1}
        self._by_gram: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
        for anchor, numbers in anchors.items():
            shift, gram = _rarest(anchor)
            grams = char_grams(values_of(codes_of(gram)))
            if len(gram) == 4:
                self._fours[grams[2, 0] >> _COARSE] = True
            elif len(gram) == 2:
                self._pairs[grams[0, 0]] = True
            self._by_gram.setdefault(gram, []).append((anchor, shift, numbers))

    def find(self, text: str, grams: Codes | None = None) -> list[tuple[int, tuple[int, ...]]]:
        """Offset of each occurrence's last character with its anchor's numbers, in order of offset.

        `grams` are the text's `char_grams` where they are known already.
        """
        grams = char_grams(values_of(codes_of(text))) if grams is None else grams
        found = [(offset, numbers) for sign, numbers in self._signs.items() for offset in _all(text, sign)]
        by_gram = self._by_gram
        for length, places in ((2, self._pairs.take(grams[0])), (4, self._fours.take(grams[2] >> _COARSE))):
            for offset in places.nonzero()[0].tolist():
                for anchor, shift, numbers in by_gram.get(text[offset : offset + length], ()):
                    if offset >= shift and text.startswith(anchor, offset - shift):
                        found.append((offset - shift + len(anchor) - 1, numbers))
        found.sort()
        return found


def _all(text: str, sign: str) -> Iterator[int]:
    offset = text.find(sign)
    while offset >= 0:
        yield offset
        offset = text.find(sign, offset + 1)


def _rarest(anchor: str) -> tuple[int, str]:
    """The offset in the anchor at which its rarest gram begins, and the gram."""
    length = max(size for size in _SIZES if size <= len(anchor))
    grams = [(anchor[offset : offset + length], offset) for offset in range(len(anchor) - length + 1)]
    gram, offset = min(grams, key=lambda gram: (sum(_COMMON.get(char, -1) for char in gram[0]), gram[1]))
    return offset, gram
