"""Batches of Kafka's format 2 byte by byte, also such as no client writes: bombs, lies, codecs that do not exist."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c, encode_varint

CODECS = {"": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
TIME = 1_790_000_000_000
_CHUNK = 1 << 20


def varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def record(delta: int, value: bytes, header: bytes = b"") -> bytes:
    """One record; ``header`` is the name of its one header, or none."""
    headers = varint(1) + varint(len(header)) + header + varint(1) + b"v" if header else varint(0)
    body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + headers
    return varint(len(body)) + body


def batch(payload: bytes, count: int, codec: int = 0, base: int = 0) -> bytes:
    """A batch as it is stored; ``payload`` is its records, packed by ``codec``."""
    tail = struct.pack(">hiqqqhii", codec, count - 1, TIME, TIME + base, -1, -1, -1, count) + payload
    return struct.pack(">qiibI", base, len(tail) + 9, -1, 2, calc_crc32c(tail)) + tail


def packed(codec: str, chunks: Iterable[bytes]) -> bytes:
    """Pack without holding what is packed."""
    if codec == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join([*(packer.compress(chunk) for chunk in chunks), packer.flush()])
    if codec == "snappy":
        blocks = [bytes(cramjam.snappy.compress_raw(chunk)) for chunk in chunks]
        return b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(b)) + b for b in blocks)
    if codec == "lz4":
        stream: Any = cramjam.lz4.Compressor(level=9, content_checksum=False, block_linked=False)
    else:
        stream = cramjam.zstd.Compressor(level=3)
    for chunk in chunks:
        stream.compress(chunk)
    return bytes(stream.finish())


def plain(values: Iterable[bytes], codec: str = "", base: int = 0) -> bytes:
    """A batch of such values as a client writes it."""
    records = [record(delta, value) for delta, value in enumerate(values)]
    payload = b"".join(records)
    return batch(packed(codec, [payload]) if codec else payload, len(records), CODECS[codec], base)


def big_bomb(codec: str, size: int) -> bytes:
    """A batch of one value of ``size`` zeros."""

    def chunks() -> Iterator[bytes]:
        length = varint(size)
        yield varint(size + len(length) + 5) + b"\0" + varint(0) + varint(0) + varint(-1) + length
        for at in range(0, size, _CHUNK):
            yield bytes(min(_CHUNK, size - at))
        yield varint(0)

    return batch(packed(codec, chunks()), 1, CODECS[codec])


def many_bomb(codec: str, count: int) -> bytes:
    """A batch of ``count`` empty records."""

    def chunks() -> Iterator[bytes]:
        for begin in range(0, count, 100_000):
            yield b"".join([record(delta, b"") for delta in range(begin, min(count, begin + 100_000))])

    return batch(packed(codec, chunks()), count, CODECS[codec])


class _Stored:
    """Stands for the library's builder of a batch that is made already."""

    def __init__(self, stored: bytes) -> None:
        self._stored = stored

    def build(self) -> bytearray:
        return bytearray(self._stored)

    def size(self) -> int:
        return len(self._stored)


async def send_batch(producer: AIOKafkaProducer, stored: bytes, topic: str, partition: int = 0) -> int:
    """Write a batch as it is; gives its first offset. The producer must not be idempotent."""
    builder = producer.create_batch()
    builder._builder = _Stored(stored)
    builder._relative_offset = 1
    return int((await (await producer.send_batch(builder, topic, partition=partition))).offset)


def equal_bomb(codec: str, count: int) -> bytes:
    """A batch of ``count`` equal records, which pack far better than numbered ones; a broker counts them all."""
    chunk = record(0, b"") * 100_000
    return batch(packed(codec, (chunk for _ in range(count // 100_000))), count // 100_000 * 100_000, CODECS[codec])
