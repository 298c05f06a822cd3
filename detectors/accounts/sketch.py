"""A sketch of a text (SimHash, Charikar 2002): near texts have sketches that differ in few of 128 bits."""

from __future__ import annotations

from collections.abc import Iterable

from detectors.accounts.cues import BITS

SKETCH = BITS // 8
"""Bytes of a sketch."""
_TOP_BIT_EACH = int.from_bytes(b"\x80" * BITS, "big")
_ONE_EACH = int.from_bytes(b"\x01" * BITS, "big")
_HALVINGS = tuple((BITS * 8 >> fold, (1 << (BITS * 8 >> fold)) - 1, 1 << fold - 1) for fold in (1, 2, 3))
"""Width, mask and shift of the steps that bring one bit of each byte together, each time into half of the bytes."""
_BIT_COUNTS = bytes(byte.bit_count() for byte in range(256))
_ONE_PER_BYTE = int.from_bytes(b"\x01" * SKETCH, "little")


def sketch(words: Iterable[int], count: int) -> int:
    """Bit i is set where more than half of the `count` words (at most 127) have bit i of their hash set."""
    return majority(sum(words), count)


def majority(summed: int, count: int) -> int:
    """The sketch of `count` words (at most 127) whose hashes, one bit a byte, add up to `summed`."""
    bits = ((summed + _ONE_EACH * (127 - count // 2)) & _TOP_BIT_EACH) >> 7
    for width, mask, shift in _HALVINGS:
        bits = bits & mask | (bits >> width) << shift
    return bits


class Ring:
    """The sketches of the latest texts, SKETCH bytes each, all compared at once within one long integer."""

    def __init__(self, size: int) -> None:
        self._bytes = size * SKETCH

    def nearest(self, kept: bytes, sketch: int) -> tuple[int, int]:
        """Bits in which `sketch` differs from the nearest of those `kept`, and from the latest; BITS where none is."""
        if not kept:
            return BITS, BITS
        size = len(kept)
        repeated = int.from_bytes(sketch.to_bytes(SKETCH, "little") * (size // SKETCH), "little")
        counts = (int.from_bytes(kept, "little") ^ repeated).to_bytes(size, "little").translate(_BIT_COUNTS)
        # the product's last byte of every sketch is the sum of its bytes, and no sum reaches 256
        sums = int.from_bytes(counts, "little") * _ONE_PER_BYTE
        distances = sums.to_bytes(size + SKETCH, "little")[SKETCH - 1 : size : SKETCH]
        return min(distances), distances[0]

    def added(self, kept: bytes, sketch: int) -> bytes:
        """The sketches with this one in front, and without the oldest where there is no room."""
        return (sketch.to_bytes(SKETCH, "little") + kept)[: self._bytes]
