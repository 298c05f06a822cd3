"""Compare-and-swap on a Kafka partition: which batches of a single-writer topic are valid.

One step is one Kafka record batch. Each record's header predicts where the batch lands and names the history
its writer knew; a batch is valid iff both came true. Whoever else wrote in between is ignored by every reader.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

HEADER = "sluice-batch"
EMPTY = b"\x00" * 32
_LAYOUT = struct.Struct(">QII32s")
_LENGTH = struct.Struct(">I")


class Link(msgspec.Struct, frozen=True, gc=False):
    """Header of one record: the batch's predicted base offset, index and count in it, digest before it."""

    base: int
    index: int
    count: int
    prev: bytes

    def pack(self) -> bytes:
        return _LAYOUT.pack(self.base, self.index, self.count, self.prev)

    @classmethod
    def unpack(cls, raw: bytes | None) -> Link | None:
        """The header's content, or None where the bytes are not one."""
        if raw is None or len(raw) != _LAYOUT.size:
            return None
        return cls(*_LAYOUT.unpack(raw))


class Entry(NamedTuple):
    """One record as read: offset, broker time in ms, chain header bytes (or None), value."""

    offset: int
    time: int
    link: bytes | None
    value: bytes


class Position(NamedTuple):
    """A reader's place: the next offset to read and the digest of the last valid batch."""

    offset: int = 0
    digest: bytes = EMPTY


def batch_digest(prev: bytes, base: int, values: Sequence[bytes]) -> bytes:
    """SHA-256 over the previous digest, the base offset and the length-prefixed values."""
    pack, pieces = _LENGTH.pack, [prev, struct.pack(">QI", base, len(values))]
    for value in values:
        pieces += (pack(len(value)), value)
    # one call for the whole batch: each call of the hash costs as much as a kilobyte of it
    return hashlib.sha256(b"".join(pieces)).digest()


def links(at: Position, count: int) -> list[bytes]:
    """The headers of a batch of ``count`` records written at ``at``."""
    pack = _LAYOUT.pack
    return [pack(at.offset, index, count, at.digest) for index in range(count)]


class ChainReader:
    """Feeds on entries in offset order and gives back the complete valid batches.

    A batch cut by a fetch boundary waits inside until its rest arrives. ``trust_first`` takes the history before
    the first well-placed batch as given (a reader that starts in the middle of a log).
    """

    def __init__(self, at: Position | None = None, *, trust_first: bool = False) -> None:
        self.at = at or Position()
        self.skipped = 0
        self._open: list[Entry] = []
        self._trust_first = trust_first

    def push(self, entry: Entry) -> list[Entry]:
        """The valid batch that ``entry`` completes, else an empty list."""
        link = Link.unpack(entry.link)
        if link is None or not self._fits(link, entry):
            self._drop(entry)
            return []
        self._open.append(entry)
        if link.index + 1 < link.count:
            return []
        batch, self._open = self._open, []
        prev = link.prev if self._trust_first else self.at.digest
        self._trust_first = False
        digest = batch_digest(prev, link.base, [e.value for e in batch])
        self.at = Position(entry.offset + 1, digest)
        return batch

    def advance(self, values: Sequence[bytes]) -> None:
        """The batch of ``values`` is known to be valid at the position: take it as read."""
        digest = batch_digest(self.at.digest, self.at.offset, values)
        self.at = Position(self.at.offset + len(values), digest)

    def _fits(self, link: Link, entry: Entry) -> bool:
        placed = entry.offset == link.base + link.index and link.index == len(self._open)
        known = link.prev == self.at.digest or self._trust_first
        return placed and known and link.index < link.count

    def _drop(self, entry: Entry) -> None:
        self.skipped += 1 + len(self._open)
        self._open = []
        self.at = Position(entry.offset + 1, self.at.digest)
