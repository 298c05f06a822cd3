"""A sketch of a text (SimHash, Charikar 2002): near texts have sketches that differ in few of 128 bits."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.accounts.cues import LANES

_TOP = int.from_bytes(b"\x80" * LANES, "big")
_ONES = int.from_bytes(b"\x01" * LANES, "big")
_FOLDS = tuple((LANES * 8 >> fold, (1 << (LANES * 8 >> fold)) - 1, 1 << fold - 1) for fold in (1, 2, 3))


def sketch(lanes: Iterable[int], count: int) -> int:
    """Bit i is set where more than half of the `count` words (at most 127) have bit i of their hash set."""
    over = (sum(lanes) + _ONES * (127 - count // 2)) & _TOP
    bits = over >> 7
    for width, mask, shift in _FOLDS:
        bits = bits & mask | (bits >> width) << shift
    return bits
