"""Sealed batches are compared with the source topic, as far back as it is kept."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator

from pipeline.events.chain import ChainReader, Entry, Position
from pipeline.events.messages import Manifest


class SourceRecords:
    """The Kafka records of one partition are read once, in offset order."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._rest: Iterator[Entry] = iter(entries)
        self._next: Entry | None = next(self._rest, None)
        self._begun = False

    def agrees(self, position: Position, batch: Manifest, content: bytes) -> bool | None:
        """Tell whether the source gives the batch's records and chain digest; None where the source starts after it.

        ``content`` is SHA-256 over offset, length and value of each sealed record. From the first batch that the
        source reaches back to, it must hold all: a gap or an early end is no agreement.
        """
        if batch.last < batch.first:
            return None
        if not self._begun and (self._next is None or batch.first < self._next.offset):
            return None
        self._begun = True
        self._drop_before(batch.first)
        reader = ChainReader(position) if batch.chain else None
        state, last = hashlib.sha256(), batch.first - 1
        for entry in self._until(batch.last):
            last = entry.offset
            for valid in reader.push(entry) if reader else [entry]:
                state.update(struct.pack(">QQ", valid.offset, len(valid.value)) + valid.value)
        if reader is None:
            return state.digest() == content and last == batch.last
        return state.digest() == content and reader.at == (batch.last + 1, batch.chain, batch.source)

    def _until(self, last: int) -> Iterator[Entry]:
        while self._next is not None and self._next.offset <= last:
            entry, self._next = self._next, next(self._rest, None)
            yield entry

    def _drop_before(self, first: int) -> None:
        while self._next is not None and self._next.offset < first:
            self._next = next(self._rest, None)
