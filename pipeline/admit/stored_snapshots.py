"""Snapshots of a partition's ledger lie in ``snapshots``, in chunks; a mark in the log makes one trusted."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator

import msgspec

from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.ledger import Ledger
from pipeline.admit.upgrade import AnyLedger
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Malformed
from pipeline.events.chain import UNKNOWN, Position
from pipeline.events.codec import decode
from pipeline.events.records import SnapshotChunk, SnapshotMark
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 512 * 1024
_TOGETHER = 3
"""Chunks that fit one batch of Kafka, and that are in memory at once."""
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(SnapshotChunk)


async def store_snapshot(
    publisher: Publisher, partition: int, slot: int, position: Position, ledger: Ledger
) -> SnapshotMark:
    """Write the ledger as of ``position`` in chunks and give the mark that makes them trusted.

    The ledger is walked twice, so that it is never in memory a second time; nothing may be applied meanwhile. Others
    run between any two pieces. Raises Retryable.
    """
    digest, count = hashlib.sha256(), 0
    async for content in _chunks(ledger.pieces()):
        digest.update(content)
        count += 1
    whole = SnapshotChunk(slot, 0, count, position.offset, position.digest, digest.digest(), b"")
    index, records = 0, list[tuple[str, int, bytes, bytes, tuple[()]]]()
    async for content in _chunks(ledger.pieces()):
        chunk = msgspec.structs.replace(whole, chunk=index, content=content)
        records.append(("snapshots", partition, f"{partition}/{slot}/{index}".encode(), _encode(chunk), ()))
        index += 1
        if len(records) == _TOGETHER or index == count:
            await publisher.send_all(records)
            records.clear()
    return SnapshotMark(ledger.time, position.offset, whole.digest, slot, count)


async def stored_snapshots(kafka: KafkaEndpoint, partition: int, offsets: Offsets) -> list[SnapshotChunk]:
    """Read the complete snapshots, newest first, each as one chunk.

    Of each chunk the newest counts, as compaction has it, so what is not compacted yet takes no memory.
    """
    reader = PartitionReader(kafka, "snapshots", partition, offsets)
    newest: dict[tuple[int, int], SnapshotChunk] = {}
    try:
        await reader.start(await reader.begin())
        end = await reader.end()
        while reader.position < end:
            for item in await reader.poll(100):
                try:
                    chunk = _read(item.value)
                except Malformed as error:
                    _log.warning("snapshots[%d]: passed over %d: %s", partition, item.offset, error)
                    continue
                newest[chunk.slot, chunk.chunk] = chunk
    finally:
        await reader.close()
    return await asyncio.to_thread(_complete, newest)


def _complete(newest: dict[tuple[int, int], SnapshotChunk]) -> list[SnapshotChunk]:
    """Put together the snapshots of which every chunk is there."""
    snapshots: dict[tuple[int, bytes], list[SnapshotChunk]] = {}
    for place in sorted(newest):
        snapshots.setdefault((newest[place].slot, newest[place].digest), []).append(newest[place])
    images = []
    for (_, digest), chunks in snapshots.items():
        content = b"".join([chunk.content for chunk in chunks])
        if hashlib.sha256(content).digest() == digest:
            first = chunks[0]
            images.append(SnapshotChunk(first.slot, 0, 1, first.position, first.chain, digest, content))
    return sorted(images, key=lambda image: -image.position)


def _read(value: bytes) -> SnapshotChunk:
    """Read a chunk; version 0.1.0 wrote them as JSON. Raises Malformed."""
    if value.startswith(b"{"):
        return decode(SnapshotChunk, value)
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"not a chunk of a snapshot: {error}") from error


async def _chunks(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Give the pieces anew, in the size that is stored; others run after each."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        while len(gathered) >= _CHUNK_BYTES:
            yield bytes(gathered[:_CHUNK_BYTES])
            del gathered[:_CHUNK_BYTES]
        await asyncio.sleep(0)
    if gathered:
        yield bytes(gathered)


def start_of(image: SnapshotChunk, ledger: AnyLedger) -> Position:
    """Give the position in ``decisions`` at which the log goes on behind a snapshot; ``ledger`` is its content."""
    source = UNKNOWN if isinstance(ledger, Ledger6) else ledger.position.next_request
    return Position(image.position, image.chain, source)
