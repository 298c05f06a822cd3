"""The finished offsets of a partition: all below the lowest unfinished one, and a bitmap above it. Pure."""

from __future__ import annotations

import base64

_MOST_BYTES = 2048
"""Bytes of the bitmap in a commit's metadata (Kafka's default bound is 4,096 characters); more is run again."""


class Progress:
    """Finished offsets of one partition, and the note that commits them."""

    def __init__(self, low: int = 0, done: set[int] | None = None) -> None:
        self.low = low
        """The lowest offset that is not finished."""
        self.changed = False
        self._done = done or set()

    @classmethod
    def load(cls, low: int, metadata: str) -> Progress:
        """From a committed offset and its metadata; metadata of another offset, or none, counts as empty."""
        start, _, bits = metadata.partition(":")
        if start != str(low) or not bits:
            return cls(low)
        bitmap = int.from_bytes(base64.b85decode(bits), "little")
        return cls(low, {low + index for index in range(bitmap.bit_length()) if bitmap >> index & 1})

    def dump(self) -> str:
        """Give the metadata that goes with ``low``."""
        bitmap = sum(1 << offset - self.low for offset in self._done if offset - self.low < _MOST_BYTES * 8)
        return f"{self.low}:{base64.b85encode(bitmap.to_bytes((bitmap.bit_length() + 7) // 8, 'little')).decode()}"

    def begin(self, offset: int) -> bool:
        """False where the offset is finished already."""
        return offset >= self.low and offset not in self._done

    def finish(self, offset: int) -> None:
        """Count an offset as finished."""
        self._done.add(offset)
        while self.low in self._done:
            self._done.discard(self.low)
            self.low += 1
        self.changed = True
