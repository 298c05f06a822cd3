"""The history of a partition is its log and the ledger that it folds to: restore, append, catch up, snapshot.

Write order of a snapshot: chunks, then the committed offset of actions, then the ``SnapshotMark``. A crash before the
last leaves chunks that no reader trusts; the other slot still holds the snapshot before.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

import msgspec
from aiokafka import TopicPartition

from pipeline.admit.ledger import Ledger
from pipeline.admit.step import AdmitStage
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Malformed
from pipeline.events.chain import Entry, Position
from pipeline.events.codec import decode, decode_log, encode
from pipeline.events.records import LogRecord, SnapshotChunk, SnapshotMark
from pipeline.kafka.chained_log import ChainedLog
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 512 * 1024
_SLOTS = 2
Fold = Callable[[LogRecord], None]


class History:
    """One partition of ``decisions`` has one ledger."""

    def __init__(
        self, kafka: KafkaEndpoint, partition: int, offsets: Offsets, publisher: Publisher, stage: AdmitStage
    ) -> None:
        self._kafka = kafka
        self._partition = partition
        self._offsets = offsets
        self._publisher = publisher
        self._stage = stage
        self._log = ChainedLog(kafka, "decisions", partition, offsets)
        self._slot = 0
        self.ledger = stage.start()
        self.since_snapshot = 0

    async def restore(self, seen: Fold) -> None:
        """Fold the newest trusted snapshot and everything after it, handed to ``seen``.

        Raises Fatal where the log was cut and no snapshot reaches its beginning.
        """
        begin = await self._offsets.begin(TopicPartition("decisions", self._partition))
        for image in await self._images():
            if image.position < begin:
                continue
            records: list[LogRecord] = []
            try:
                self.ledger = Ledger.load(image.content)
            except Malformed as error:
                _log.warning("decisions[%d]: snapshot at %d passed over: %s", self._partition, image.position, error)
                continue
            await self._log.start(Position(image.position, image.chain))
            await self.catch_up(records.append)
            if any(isinstance(r, SnapshotMark) and r.digest == image.digest for r in records):
                self._slot = (image.slot + 1) % _SLOTS
                for record in records:
                    seen(record)
                return
            _log.warning("decisions[%d]: no mark for the snapshot at %d", self._partition, image.position)
        if begin:
            raise Fatal(
                f"decisions[{self._partition}] starts at {begin} and no snapshot reaches that far: its ledger cannot "
                "be rebuilt. Restore the topic or a snapshot, or start a new generation."
            )
        self.ledger = self._stage.start()
        await self._log.start(Position())
        await self.catch_up(seen)

    async def write(self, records: Sequence[bytes]) -> bool:
        """Append what was applied since ``ledger.begin``; False undoes it, and ``catch_up`` must follow."""
        if await self._log.append(records):
            self.ledger.commit()
            self.since_snapshot += len(records)
            return True
        self.ledger.rollback()
        return False

    async def behind(self) -> bool:
        return await self._log.behind()

    async def catch_up(self, seen: Fold) -> None:
        """Fold the records of others, up to the end."""
        while await self._log.behind():
            records = [self._decode(entry) for entry in await self._log.catch_up()]
            self.ledger = self._stage.fold(self.ledger, records)
            self.since_snapshot += len(records)
            for record in records:
                seen(record)

    async def snapshot(self) -> bool:
        """Store the ledger and say so in the log; False where another writer came first."""
        content = self.ledger.dump()
        position, digest = self._log.position, hashlib.sha256(content).digest()
        whole = SnapshotChunk(self._slot, 0, 1, position.offset, position.digest, digest, content)
        pieces = [content[i : i + _CHUNK_BYTES] for i in range(0, len(content), _CHUNK_BYTES)]
        await self._publisher.send_all(
            [
                (
                    "snapshots",
                    self._partition,
                    f"{self._partition}/{self._slot}/{index}".encode(),
                    encode(msgspec.structs.replace(whole, chunk=index, chunks=len(pieces), content=piece)),
                    (),
                )
                for index, piece in enumerate(pieces)
            ]
        )
        snapshot = SnapshotMark(self.ledger.time, position.offset, digest, self._slot, len(pieces))
        self.ledger.begin()
        self.ledger.apply(snapshot)
        if not await self.write([encode(snapshot)]):
            return False
        self._slot = (self._slot + 1) % _SLOTS
        self.since_snapshot = 0
        return True

    async def close(self) -> None:
        await self._log.close()

    async def _images(self) -> list[SnapshotChunk]:
        """Read the complete snapshots, newest first, each as one chunk."""
        reader = PartitionReader(self._kafka, "snapshots", self._partition, self._offsets)
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
                _log.warning("snapshots[%d]: passed over %d: %s", self._partition, item.offset, error)
                continue
            snapshots.setdefault(chunk.digest, {})[chunk.chunk] = chunk
        images = []
        for digest, chunks in snapshots.items():
            content = b"".join(chunks[index].content for index in sorted(chunks))
            if hashlib.sha256(content).digest() == digest:
                first = chunks[0]
                images.append(SnapshotChunk(first.slot, 0, 1, first.position, first.chain, digest, content))
        return sorted(images, key=lambda image: -image.position)

    def _decode(self, entry: Entry) -> LogRecord:
        try:
            return decode_log(entry.value)
        except Malformed as error:
            raise Fatal(f"decisions[{self._partition}] {entry.offset} is valid but unreadable: {error}") from error
