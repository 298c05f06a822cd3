"""Idempotency keys are kept in packed rows, oldest first, with an open-addressing index over them: 50 bytes a key.

A key counts for IDEMPOTENCY_MS from its request on; that alone decides what ``holder`` and ``rows`` tell. When memory
is given back is no part of the state, and no step of it takes longer than one part of the index.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterator

import numpy as np

from pipeline.admit.journal import UndoJournal
from pipeline.errors import Malformed

IDEMPOTENCY_MS = 24 * 3600 * 1000
_ROW = struct.Struct("<16sqq")
_FIELDS = np.dtype([("name", "V16"), ("offset", "<i8"), ("time", "<i8")])
_OFFSET = struct.Struct("<q")
_FREED = -1
"""Stands for the offset of a row that holds nothing any more."""
_FREED_OFFSET = _OFFSET.pack(_FREED)
_SEGMENT_ROWS = 4096
_PARTS = 1024
_FILL, _ROOM = 0.65, 2.5
"""An index part is rebuilt when it is filled so far, with so many slots for each row that it still needs."""


def digest_of(principal: str, key: str) -> bytes:
    """Give the name under which a principal's idempotency key is kept."""
    return hashlib.sha256(f"{principal}\0{key}".encode()).digest()[:16]


def row_of(name: bytes, offset: int, time: int) -> bytes:
    """Give the row of a key, as ``IdempotencyKeys.load`` reads it."""
    return _ROW.pack(name, offset, time)


class IdempotencyKeys:
    """The idempotency keys of one partition, each with the offset and the time of the request that holds it.

    Rows lie in segments by their number, in the order of the log. The index finds a row's number by the process's own
    salted hash, so nobody can choose keys that collide. It may name rows that are freed, expired or given back: a
    lookup passes over them, and rebuilding a part drops them.
    """

    def __init__(self) -> None:
        self._segments: dict[int, bytearray] = {}
        self._first = self._next = 0
        """The first segment, and the number of the next row."""
        self._slots = [array("Q", bytes(8 * 4)) for _ in range(_PARTS)]
        """Of each part of the index; a slot holds the number of a row plus one, or zero."""
        self._used = [0] * _PARTS

    @classmethod
    def load(cls, rows: memoryview) -> IdempotencyKeys:
        """Read what ``rows`` gave. Raises Malformed where it is no whole number of rows."""
        if len(rows) % _ROW.size:
            raise Malformed(f"expected rows of {_ROW.size} bytes in a ledger, got {len(rows)} bytes")
        keys = cls()
        whole = _SEGMENT_ROWS * _ROW.size
        for number, start in enumerate(range(0, len(rows), whole)):
            piece = rows[start : start + whole]
            keys._segments[number] = bytearray(piece) + bytearray(whole - len(piece))
        keys._next = len(rows) // _ROW.size
        for row in range(keys._next):
            keys._slots[hash(bytes(rows[row * _ROW.size : row * _ROW.size + 16])) % _PARTS].append(row + 1)
        for part in range(_PARTS):
            keys._rebuild(part)
        return keys

    def holder(self, name: bytes, now: int) -> int | None:
        """Give the offset of the request that holds a key at ``now``; None where none does."""
        row = self._find(name, now)
        return None if row is None else _offset(*self._place(row))

    def hold(self, name: bytes, offset: int, time: int, journal: UndoJournal) -> None:
        """Let a request hold a key from ``time`` on, which is not before that of an earlier one."""
        before = self._find(name, time)
        if before is not None:
            self._free(before, journal)
        row = self._append(name, offset, time)
        journal.undo_by(lambda: self._set_offset(row, _FREED))

    def free(self, name: bytes, offset: int, now: int, journal: UndoJournal) -> None:
        """Let a key go, if the request at ``offset`` holds it."""
        row = self._find(name, now)
        if row is not None and _offset(*self._place(row)) == offset:
            self._free(row, journal)

    def rows(self, now: int) -> Iterator[bytes]:
        """Give the rows of all keys that are held at ``now``, in the order of the log, in pieces."""
        for number, segment in list(self._segments.items()):
            count = min(_SEGMENT_ROWS, self._next - number * _SEGMENT_ROWS)
            rows = np.frombuffer(segment, _FIELDS, count)
            yield rows[(rows["offset"] != _FREED) & (rows["time"] > now - IDEMPOTENCY_MS)].tobytes()

    def release(self, settled: int) -> None:
        """Give the memory of keys back that count no more at ``settled``, a time that is not undone."""
        while self._next >= (self._first + 1) * _SEGMENT_ROWS:
            newest = _ROW.unpack_from(self._segments[self._first], (_SEGMENT_ROWS - 1) * _ROW.size)[2]
            if newest > settled - IDEMPOTENCY_MS:
                return
            del self._segments[self._first]
            self._first += 1

    def _find(self, name: bytes, now: int) -> int | None:
        value = hash(name)
        slots = self._slots[value % _PARTS]
        slot, size = value // _PARTS % len(slots), len(slots)
        while slots[slot]:
            segment, start = self._place(slots[slot] - 1)
            if segment.startswith(name, start):
                _, offset, time = _ROW.unpack_from(segment, start)
                if offset != _FREED and time > now - IDEMPOTENCY_MS:
                    return slots[slot] - 1
            slot = slot + 1 if slot + 1 < size else 0
        return None

    def _place(self, row: int) -> tuple[bytearray, int]:
        """Give the segment of a row and where it begins there; the segment is empty where it was given back."""
        number, index = divmod(row, _SEGMENT_ROWS)
        return self._segments.get(number, _NOTHING), index * _ROW.size

    def _append(self, name: bytes, offset: int, time: int) -> int:
        row = self._next
        number, index = divmod(row, _SEGMENT_ROWS)
        segment = self._segments.get(number)
        if segment is None:
            segment = self._segments[number] = bytearray(_SEGMENT_ROWS * _ROW.size)
        _ROW.pack_into(segment, index * _ROW.size, name, offset, time)
        self._next = row + 1
        self._index(name, row)
        return row

    def _free(self, row: int, journal: UndoJournal) -> None:
        segment, start = self._place(row)
        name, offset, _ = _ROW.unpack_from(segment, start)
        self._set_offset(row, _FREED)

        def restore() -> None:
            self._set_offset(row, offset)
            # rebuilding may have dropped the row meanwhile
            self._index(name, row)

        journal.undo_by(restore)

    def _set_offset(self, row: int, offset: int) -> None:
        segment, start = self._place(row)
        _OFFSET.pack_into(segment, start + 16, offset)

    def _index(self, name: bytes, row: int) -> None:
        value = hash(name)
        part = value % _PARTS
        if self._used[part] >= _FILL * len(self._slots[part]) - 1:
            self._rebuild(part)
        _take_slot(self._slots[part], value // _PARTS, row)
        self._used[part] += 1

    def _rebuild(self, part: int) -> None:
        # written out, as all that others wait for here is this
        needed, rows = [], []
        for stored in filter(None, self._slots[part]):
            segment = self._segments.get((stored - 1) // _SEGMENT_ROWS, _NOTHING)
            start = (stored - 1) % _SEGMENT_ROWS * _ROW.size
            if segment and not segment.startswith(_FREED_OFFSET, start + 16):
                needed.append(hash(bytes(segment[start : start + 16])) // _PARTS)
                rows.append(stored - 1)
        slots = array("Q", bytes(8 * max(4, int(_ROOM * len(needed)))))
        for value, row in zip(needed, rows, strict=True):
            _take_slot(slots, value, row)
        self._slots[part] = slots
        self._used[part] = len(needed)


_NOTHING = bytearray()


def _offset(segment: bytearray, start: int) -> int:
    offset: int = _OFFSET.unpack_from(segment, start + 16)[0]
    return offset


def _take_slot(slots: array[int], value: int, row: int) -> None:
    size = len(slots)
    slot = value % size
    while slots[slot]:
        slot = slot + 1 if slot + 1 < size else 0
    slots[slot] = row + 1
