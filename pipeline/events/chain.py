"""A batch of a single-writer topic is valid by compare-and-swap on its Kafka partition.

One step is one Kafka record batch. Each record's header (a link) predicts where the batch lands and names the history
its writer knew; a batch is valid iff both came true. Every reader ignores what was written in between.

A link of version 2 says besides which part of the source the batch answers, ``start`` to ``end`` (exclusive). It is
valid only if ``start`` equals the ``end`` of the valid batch before: no writer, however late or wrong, can answer one
input twice or pass over one. The ``Upgrade`` record before the first batch of version 2 says what that goes on from; it
is 0 where nothing lies before. From there on a link of version 1 is invalid; what lies before is read under the rule of
its time. What the link says must be what the records say: each can be read, and the decisions among them answer that
part of the source, one after the other and nothing else. A batch of which this does not hold is passed over whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pipeline.errors import Malformed
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision, LogRecord, Upgrade

HEADER = "sluice-batch"
EMPTY = b"\x00" * 32
_LAYOUT = struct.Struct(">QII32s")
_LAYOUT_2 = struct.Struct(">BQIIQQ32s")
_LENGTH = struct.Struct(">I")
UNKNOWN = -1
"""Source offset of a history that has neither a link of version 2 nor an ``Upgrade`` record yet."""
_UPGRADE = b'{"kind":"upgrade",'
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Of the values of a batch that waits for its rest; no broker takes as much in one batch."""


class Link(msgspec.Struct, frozen=True, gc=False):
    """Each record has a header: the batch's predicted base offset, index and count in it, digest before it."""

    base: int
    index: int
    count: int
    prev: bytes
    start: int = UNKNOWN
    """The next source offset before the batch; UNKNOWN in version 1."""
    end: int = UNKNOWN
    """The next source offset after the batch."""

    @property
    def version(self) -> int:
        return 1 if self.start == UNKNOWN else 2

    def pack(self) -> bytes:
        if self.version == 1:
            return _LAYOUT.pack(self.base, self.index, self.count, self.prev)
        return _LAYOUT_2.pack(2, self.base, self.index, self.count, self.start, self.end, self.prev)

    @classmethod
    def unpack(cls, raw: bytes | None) -> Link | None:
        """Read a header; None where the bytes are not one."""
        if raw is None:
            return None
        if len(raw) == _LAYOUT.size:
            return cls(*_LAYOUT.unpack(raw))
        if len(raw) != _LAYOUT_2.size or raw[0] != 2:
            return None
        _, base, index, count, start, end, prev = _LAYOUT_2.unpack(raw)
        return cls(base, index, count, prev, start, end) if start <= end else None


class Entry(NamedTuple):
    """One record is read so: offset, broker time in ms, chain header bytes (or None), value."""

    offset: int
    time: int
    link: bytes | None
    value: bytes
    record: LogRecord | None = None
    """What the value says, where the chain had to know it."""


class Position(NamedTuple):
    """A reader goes on at an offset, with the digest of the last valid batch."""

    offset: int = 0
    digest: bytes = EMPTY
    source: int = UNKNOWN
    """The next source offset; UNKNOWN as long as no record or link has told it."""


def batch_digest(prev: bytes, base: int, values: Sequence[bytes]) -> bytes:
    """Give the SHA-256 over the previous digest, the base offset and the length-prefixed values."""
    pack, pieces = _LENGTH.pack, [prev, struct.pack(">QI", base, len(values))]
    for value in values:
        pieces += (pack(len(value)), value)
    # one call for the whole batch: each call of the hash costs as much as a kilobyte of it
    return hashlib.sha256(b"".join(pieces)).digest()


def links(at: Position, count: int, span: tuple[int, int] | None = None) -> list[bytes]:
    """The headers of a batch of ``count`` records written at ``at``.

    ``span`` is the part of the source that the batch answers, start and end (exclusive); without it the links are of
    version 1.
    """
    if span is None:
        pack = _LAYOUT.pack
        return [pack(at.offset, index, count, at.digest) for index in range(count)]
    pack, (start, end) = _LAYOUT_2.pack, span
    return [pack(2, at.offset, index, count, start, end, at.digest) for index in range(count)]


class ChainReader:
    """The reader takes entries in offset order and gives back the complete valid batches.

    A batch cut by a fetch boundary waits inside until its rest arrives. What comes instead of its rest ends the wait:
    the part counts as skipped, and the newcomer is judged by itself. ``trust_first`` takes the history before the first
    well-placed batch as given (a reader that starts in the middle of a log).
    """

    def __init__(self, at: Position | None = None, *, trust_first: bool = False) -> None:
        self.at = at or Position()
        self.skipped = 0
        self._open: list[Entry] = []
        self._bytes = 0
        """Of the values in ``_open``."""
        self._first: Link | None = None
        """The link of the first record of the batch that waits."""
        self._trust_first = trust_first

    @property
    def next_offset(self) -> int:
        """The next offset to read; behind ``at`` while a part of a batch waits."""
        return self.at.offset + len(self._open)

    def copy(self) -> ChainReader:
        """Give a reader in the same state."""
        other = ChainReader(self.at, trust_first=self._trust_first)
        other.skipped, other._first = self.skipped, self._first
        other._open, other._bytes = list(self._open), self._bytes
        return other

    def push(self, entry: Entry) -> list[Entry]:
        """Give the valid batch that ``entry`` completes, else an empty list."""
        link = Link.unpack(entry.link)
        if self._open and not self._continues(link, entry):
            self._pass_over(self._open[-1].offset + 1, len(self._open))
        if link is None or not (self._open or self._begins(link, entry)):
            self._pass_over(entry.offset + 1, 1)
            return []
        if not self._open:
            self._first = link
            self.at = self.at._replace(offset=entry.offset)
        self._open.append(entry)
        self._bytes += len(entry.value)
        if self._bytes > MAX_BATCH_BYTES:
            self._pass_over(entry.offset + 1, len(self._open))
        elif link.index + 1 == link.count:
            return self._complete(link)
        return []

    def _complete(self, link: Link) -> list[Entry]:
        """Give the batch, all of which is there; nothing where its records are not what its link says."""
        batch, values = self._open, [entry.value for entry in self._open]
        if link.version > 1:
            records = _records(values, link.start, link.end)
            if not records:
                self._pass_over(batch[-1].offset + 1, len(batch))
                return []
            batch = [Entry(*entry[:4], record) for entry, record in zip(batch, records, strict=True)]
        self._open, self._bytes = [], 0
        self._trust_first = False
        digest = batch_digest(link.prev, link.base, values)
        source = link.end if link.version > 1 else _told_by(values)
        self.at = Position(batch[-1].offset + 1, digest, source)
        return batch

    def skip_to(self, offset: int) -> None:
        """Go on at ``offset``: what lies between holds no record (transaction markers, records that were removed)."""
        if offset > self.next_offset:
            if self._open:
                self._pass_over(offset, len(self._open))
            self.at = self.at._replace(offset=offset)

    def advance(self, values: Sequence[bytes], span: tuple[int, int] | None = None) -> None:
        """Take the batch of ``values`` as read; it is known to be valid at ``next_offset``."""
        if self._open:
            self._pass_over(self.next_offset, len(self._open))
        digest = batch_digest(self.at.digest, self.at.offset, values)
        self.at = Position(self.at.offset + len(values), digest, span[1] if span else _told_by(values))

    def _begins(self, link: Link, entry: Entry) -> bool:
        placed = link.index == 0 and entry.offset == link.base and link.count > 0
        known = link.prev == self.at.digest or self._trust_first
        return placed and known and self._goes_on(link)

    def _goes_on(self, link: Link) -> bool:
        """Tell whether the batch answers the part of the source that comes next."""
        if self.at.source != UNKNOWN or link.version == 1:
            return link.start == self.at.source
        return self._trust_first or (self.at.digest == EMPTY and link.start == 0)

    def _continues(self, link: Link | None, entry: Entry) -> bool:
        """Tell whether the entry is the next of the batch that waits: nothing but the index of its link differs."""
        index, first = len(self._open), self._first
        return (
            link is not None
            and first is not None
            and link.index == index
            and entry.offset == first.base + index
            and (link.base, link.count, link.prev, link.start, link.end)
            == (first.base, first.count, first.prev, first.start, first.end)
        )

    def _pass_over(self, offset: int, count: int) -> None:
        self.skipped += count
        self._open, self._bytes = [], 0
        self._first = None
        self.at = self.at._replace(offset=offset)


def _records(values: Sequence[bytes], start: int, end: int) -> list[LogRecord]:
    """Read the records; none where one cannot be read, or they do not answer the source from ``start`` to ``end``."""
    try:
        records = [decode_log(value) for value in values]
    except Malformed:
        return []
    at = start
    for record in records:
        if isinstance(record, Decision):
            facts = record.facts
            if facts.skipped < 0 or facts.start - facts.skipped != at or not facts.orderly:
                return []
            at = facts.offset + 1
    return records if at == end else []


def _told_by(values: Sequence[bytes]) -> int:
    """Give the source offset that an ``Upgrade`` record goes on from; UNKNOWN for a batch of anything else."""
    if len(values) != 1 or not values[0].startswith(_UPGRADE):
        return UNKNOWN
    try:
        record = decode_log(values[0])
    except Malformed:
        return UNKNOWN
    return record.requests if isinstance(record, Upgrade) and 0 <= record.requests < 2**63 else UNKNOWN
