"""Snapshots of a partition's ledger lie in ``snapshots``, in chunks; a mark in the log makes one trusted."""

from __future__ import annotations

import hashlib
import logging

from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.upgrade import AnyLedger
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Malformed
from pipeline.events.chain import UNKNOWN, Position
from pipeline.events.codec import decode
from pipeline.events.records import SnapshotChunk
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader

_log = logging.getLogger(__name__)


async def stored_snapshots(kafka: KafkaEndpoint, partition: int, offsets: Offsets) -> list[SnapshotChunk]:
    """Read the complete snapshots, newest first, each as one chunk."""
    reader = PartitionReader(kafka, "snapshots", partition, offsets)
    try:
        await reader.start(await reader.begin())
        items = await reader.read_to_end()
    finally:
        await reader.close()
    snapshots: dict[bytes, dict[int, SnapshotChunk]] = {}
    for item in items:
        try:
            chunk = decode(SnapshotChunk, item.value)
        except Malformed as error:
            _log.warning("snapshots[%d]: passed over %d: %s", partition, item.offset, error)
            continue
        snapshots.setdefault(chunk.digest, {})[chunk.chunk] = chunk
    images = []
    for digest, chunks in snapshots.items():
        content = b"".join(chunks[index].content for index in sorted(chunks))
        if hashlib.sha256(content).digest() == digest:
            first = chunks[0]
            images.append(SnapshotChunk(first.slot, 0, 1, first.position, first.chain, digest, content))
    return sorted(images, key=lambda image: -image.position)


def start_of(image: SnapshotChunk, ledger: AnyLedger) -> Position:
    """Give the position in ``decisions`` at which the log goes on behind a snapshot; ``ledger`` is its content."""
    source = UNKNOWN if isinstance(ledger, Ledger6) else ledger.position.next_request
    return Position(image.position, image.chain, source)
