"""Unpacks the batches that a consumer fetches, each within bounds: a small one may unpack to any size.

aiokafka unpacks a batch as a whole and knows no limit. ``bound_consumers`` puts ``BoundedRecords`` in the place of the
class by which its fetcher reads a response. What cannot be unpacked within the bounds is counted by the batch's
header alone and handed on as one ``PackedBatch``.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint_py

MAX_UNPACKED_BYTES = 8 * 1024 * 1024
MAX_BATCH_RECORDS = 32_768
"""More than fit MAX_UNPACKED_BYTES with the headers of a signed request."""
_HEAD = DefaultRecordBase.HEADER_STRUCT
_PREFIX = struct.Struct(">qi")
"""Base offset, and the length of what follows."""
_MAGIC_AT = struct.calcsize(">qii")
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD = 16
_BLOCK = struct.Struct(">i")


class _Scratch(threading.local):
    """Batches are unpacked here one after the other, so a batch that lies about its size makes nothing grow."""

    def __init__(self) -> None:
        self.room = bytearray(MAX_UNPACKED_BYTES + 1)


_scratch = _Scratch()


class Unpackable(Exception):
    """A batch does not unpack, or to more than the bounds."""


class PackedBatch(bytes):
    """The bytes of a batch that was not unpacked; they stand for its records from the offset ``first`` on."""

    first: int


class _PackedRecord(NamedTuple):
    """The last offset of a batch that was not unpacked, in the shape of a record."""

    offset: int
    timestamp: int
    value: PackedBatch
    timestamp_type: int = 1
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None


class BoundedRecords:
    """The batches of one response of a fetch, as the library's ``MemoryRecords`` gives them."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def size_in_bytes(self) -> int:
        return len(self._content)

    def has_next(self) -> bool:
        return self._end() is not None

    def next_batch(self) -> Any:
        """Give the next whole batch; None where the rest of the response is less than one."""
        end = self._end()
        if end is None:
            return None
        stored = bytes(memoryview(self._content)[self._position : end])
        self._position = end
        if len(stored) < _HEAD.size or stored[_MAGIC_AT] < 2:
            return MemoryRecords(stored).next_batch()
        return BoundedBatch(stored)

    def _end(self) -> int | None:
        begin = self._position
        if len(self._content) - begin < _PREFIX.size:
            return None
        length: int = _PREFIX.unpack_from(self._content, begin)[1]
        end = begin + _PREFIX.size + length
        return end if length >= 0 and end <= len(self._content) else None


class BoundedBatch:
    """One batch of format 2; iterating gives its records, or one that stands for those that cannot be read."""

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._batch = batch = DefaultRecordBatch(stored)
        self.validate_crc = batch.validate_crc
        self.base_offset: int = batch.base_offset
        self.next_offset: int = batch.next_offset
        self.is_control_batch: bool = batch.is_control_batch
        self.is_transactional: bool = batch.is_transactional
        self.producer_id: int = batch.producer_id
        self._records: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        self._records = self._read()
        return self._records

    def __next__(self) -> Any:
        return next(self._records or iter(self))

    def _read(self) -> Iterator[Any]:
        count: int = _HEAD.unpack_from(self._stored)[-1]
        try:
            if count > MAX_BATCH_RECORDS:
                raise Unpackable(f"expected at most {MAX_BATCH_RECORDS} records, got {count}")
            plain = self._plain()
        except Unpackable:
            yield self._packed(self.base_offset)
            return
        first = self.base_offset
        compacted = count < self.next_offset - first
        try:
            for record in self._records_of(plain):
                # a broker takes what a record that is not compressed says of its offset unchecked
                if record.offset != first and not (compacted and first < record.offset < self.next_offset):
                    raise CorruptRecordException(f"expected offset {first}, got {record.offset}")
                first = record.offset + 1
                yield record
        except CorruptRecordException:
            if first < self.next_offset:
                yield self._packed(first)

    @staticmethod
    def _records_of(plain: bytes) -> Iterator[Any]:
        read = 0
        try:
            for record in DefaultRecordBatch(plain):
                read += 1
                yield record
        except UnicodeDecodeError:
            # the name of a header is no UTF-8; the library stops in the middle of the record
            batch = _DefaultRecordBatchPy(plain)
            batch._buffer = _LenientBytes(batch._buffer)
            # the library's faster way to read a number does so behind the end of the batch as well
            batch._read_msg = partial(batch._read_msg, decode_varint_py)
            yield from islice(batch, read, None)

    def _packed(self, first: int) -> _PackedRecord:
        """Stand for the records from the offset ``first`` on."""
        value = PackedBatch(self._stored)
        value.first = first
        return _PackedRecord(self.next_offset - 1, self._batch.max_timestamp, value)

    def _plain(self) -> bytes:
        """Give the batch as one that is not compressed. Raises Unpackable."""
        codec = self._batch.compression_type
        if not codec:
            return self._stored
        unpack = _CODECS.get(codec)
        if unpack is None:
            raise Unpackable(f"expected a codec of {sorted(_CODECS)}, got {codec}")
        try:
            size = unpack(self._stored[_HEAD.size :])
        except (zlib.error, cramjam.DecompressionError, struct.error) as error:
            raise Unpackable(str(error)) from error
        if size > MAX_UNPACKED_BYTES:
            raise Unpackable(f"expected at most {MAX_UNPACKED_BYTES} bytes, got more")
        fields = list(_HEAD.unpack_from(self._stored))
        fields[5] &= ~DefaultRecordBase.CODEC_MASK
        return b"".join((_HEAD.pack(*fields), memoryview(_scratch.room)[:size]))


class _LenientBytes(bytearray):
    """Bytes that decode to text whatever they are."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _LenientBytes(found) if isinstance(found, bytearray) else found

    def decode(self, *_: Any) -> str:
        return super().decode("utf-8", "replace")


def _gzip(packed: bytes) -> int:
    unpacker = zlib.decompressobj(wbits=31)
    plain = unpacker.decompress(packed, MAX_UNPACKED_BYTES + 1)
    if len(plain) <= MAX_UNPACKED_BYTES and (not unpacker.eof or unpacker.unused_data):
        # members one after the other are no client's habit, and many empty ones would cost a copy each
        raise Unpackable("expected one whole gzip member")
    _scratch.room[: len(plain)] = plain
    return len(plain)


def _snappy(packed: bytes) -> int:
    room = memoryview(_scratch.room)
    if not packed.startswith(_XERIAL):
        return int(cramjam.snappy.decompress_raw_into(packed, room))
    size, at = 0, _XERIAL_HEAD
    while at < len(packed):
        (length,) = _BLOCK.unpack_from(packed, at)
        at += _BLOCK.size
        if length <= 0:
            raise Unpackable(f"expected a block of snappy, got one of {length} bytes")
        size += int(cramjam.snappy.decompress_raw_into(packed[at : at + length], room[size:]))
        at += length
    return size


def _lz4(packed: bytes) -> int:
    return int(cramjam.lz4.decompress_into(packed, _scratch.room))


def _zstd(packed: bytes) -> int:
    return int(cramjam.zstd.decompress_into(packed, _scratch.room))


_CODECS: dict[int, Callable[[bytes], int]] = {
    DefaultRecordBase.CODEC_GZIP: _gzip,
    DefaultRecordBase.CODEC_SNAPPY: _snappy,
    DefaultRecordBase.CODEC_LZ4: _lz4,
    DefaultRecordBase.CODEC_ZSTD: _zstd,
}


def bound_consumers() -> None:
    """Have every consumer of this process read its batches within the bounds."""
    fetcher.MemoryRecords = BoundedRecords
