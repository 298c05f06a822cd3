"""Fields of packed integers: where each begins, how wide it is, and what it means."""

from __future__ import annotations


class BitField:
    """An unsigned number of `width` bits that begins at bit `offset` of a packed integer."""

    __slots__ = ("mask", "maximum", "meaning", "offset", "width")

    def __init__(self, offset: int, width: int, meaning: str) -> None:
        self.offset = offset
        self.width = width
        self.meaning = meaning
        self.maximum = (1 << width) - 1
        self.mask = self.maximum << offset

    def pack(self, value: int) -> int:
        """The bits that hold `value`, which is brought into the range of the field first."""
        if value > self.maximum:
            return self.mask
        return value << self.offset if value > 0 else 0

    def unpack(self, packed: int) -> int:
        """The number that the packed integer holds here."""
        return packed >> self.offset & self.maximum
