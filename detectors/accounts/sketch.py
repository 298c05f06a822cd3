"""A sketch of a text (SimHash, Charikar 2002): near texts have sketches that differ in few of 128 bits."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.accounts.cues import BITS

SKETCH = BITS // 8
"""Bytes of a sketch."""
_TOP = int.from_bytes(b"\x80" * BITS, "big")
_ONES = int.from_bytes(b"\x01" * BITS, "big")
_FOLDS = tuple((BITS * 8 >> fold, (1 << (BITS * 8 >> fold)) - 1, 1 << fold - 1) for fold in (1, 2, 3))

_BITS = bytes(byte.bit_count() for byte in range(256))
_EACH = int.from_bytes(b"\x01" * SKETCH, "little")


def sketch(lanes: Iterable[int], count: int) -> int:
    """Bit i is set where more than half of the `count` words (at most 127) have bit i of their hash set."""
    return majority(sum(lanes), count)


def majority(summed: int, count: int) -> int:
    """The sketch of `count` words (at most 127) whose lanes add up to `summed`."""
    bits = ((summed + _ONES * (127 - count // 2)) & _TOP) >> 7
    for width, mask, shift in _FOLDS:
        bits = bits & mask | (bits >> width) << shift
    return bits


class Ring:
    """Sketches of the latest texts, SKETCH bytes each, and how far a sketch is from the nearest: all at once, as counts
    of bits in lanes of one integer."""

    def __init__(self, size: int) -> None:
        self._bytes = size * SKETCH

    def nearest(self, held: bytes, found: int) -> tuple[int, int]:
        """Bits in which `found` differs from the nearest of those `held`, and from the latest; LANES where there is
        none."""
        if not held:
            return BITS, BITS
        size, raw = len(held), found.to_bytes(SKETCH, "little")
        same = int.from_bytes(raw * (size // SKETCH), "little")
        counts = (int.from_bytes(held, "little") ^ same).to_bytes(size, "little").translate(_BITS)
        # the product's last byte of every sketch is the sum of its bytes, and no sum reaches 256
        sums = int.from_bytes(counts, "little") * _EACH
        bits = sums.to_bytes(size + SKETCH, "little")[SKETCH - 1 : size : SKETCH]
        return min(bits), bits[0]

    def added(self, held: bytes, found: int) -> bytes:
        """With `found` in front, and without the oldest where there is no room."""
        return (found.to_bytes(SKETCH, "little") + held)[: self._bytes]
