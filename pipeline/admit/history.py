"""The history of a partition is its log and the ledger that it folds to: restore, append, catch up, snapshot.

Write order of a snapshot: chunks, then the committed offset of actions, then the ``SnapshotMark``. A crash before the
last leaves chunks that no reader trusts; the other slot still holds the snapshot before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiokafka import TopicPartition

from pipeline.admit import upgrade
from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.ledger import Ledger
from pipeline.admit.stored_snapshots import start_of, store_snapshot, stored_snapshots
from pipeline.admit.upgrade import AnyLedger
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Malformed
from pipeline.events.chain import UNKNOWN, Entry, Position
from pipeline.events.codec import decode_log, encode
from pipeline.events.records import Decision, LogRecord, Outcome, SnapshotChunk, SnapshotMark, Upgrade, landed
from pipeline.kafka.chained_log import ChainedLog
from pipeline.kafka.clock_watch import ClockWatch, monotonic_ms
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.writer import Publisher

_log = logging.getLogger(__name__)
_SLOTS = 2
_RECORDS_PER_CHUNK = 512
SNAPSHOT_MS = 24 * 3600 * 1000
"""A snapshot is due so long after the newest one even if nothing else was written: retention takes a quiet log with all
its marks, and a log without one cannot be folded again."""
_FOLDED_AT_ONCE = 64
"""Records of others after which the event loop's other partitions have a turn."""
Fold = Callable[[LogRecord], None]


class History:
    """One partition of ``decisions`` has one ledger."""

    def __init__(
        self, kafka: KafkaEndpoint, partition: int, offsets: Offsets, publisher: Publisher, clock_watch: ClockWatch
    ) -> None:
        self._kafka = kafka
        self._partition = partition
        self._offsets = offsets
        self._publisher = publisher
        self._clock_watch = clock_watch
        self._log = ChainedLog(kafka, "decisions", partition, offsets)
        self._slot = 0
        self._state: AnyLedger = Ledger6()
        self._since_snapshot = self._chunks = 0
        """Records behind the newest snapshot, and its size."""
        self._newest = self._marked = 0
        """Append time of the newest record, and of the newest mark, or of the first record before any; 0 for none."""

    @property
    def ledger(self) -> Ledger:
        """The ledger of this build; ``lift`` comes first where the log is of the build before."""
        if isinstance(self._state, Ledger6):
            raise Fatal(f"decisions[{self._partition}] is of decider 6 and not lifted yet; start the worker again")
        return self._state

    async def restore(self, seen: Fold) -> None:
        """Fold the newest trusted snapshot and everything after it, handed to ``seen``.

        Raises Fatal where the log was cut and no snapshot reaches its beginning.
        """
        begin = await self._offsets.begin(TopicPartition("decisions", self._partition))
        for image in await stored_snapshots(self._kafka, self._partition, self._offsets):
            if image.position < begin:
                continue
            try:
                records = await self._restore_from(image)
            except Malformed as error:
                _log.warning("decisions[%d]: snapshot at %d passed over: %s", self._partition, image.position, error)
                continue
            for record in records:
                seen(record)
            return
        if begin:
            raise Fatal(
                f"decisions[{self._partition}] starts at {begin} and no snapshot reaches that far: its ledger cannot "
                "be rebuilt. Restore the topic or a snapshot, or start a new generation."
            )
        self._state = Ledger6()
        await self._log.start(Position())
        await self.catch_up(seen)

    async def _restore_from(self, image: SnapshotChunk) -> list[LogRecord]:
        """Fold a stored snapshot and everything after it. Raises Malformed where it does not belong here."""
        records: list[LogRecord] = []
        self._since_snapshot = self._chunks = self._marked = 0
        # in a thread: a large one takes seconds
        self._state = await asyncio.to_thread(upgrade.load, image.content)
        await self._log.start(start_of(image, self._state))
        await self.catch_up(records.append)
        marks = [record for record in records if isinstance(record, SnapshotMark)]
        if (image.digest, image.position) not in [(mark.digest, mark.position) for mark in marks]:
            raise Malformed("expected a mark in the log, got none")
        return records

    async def lift(self, seen: Fold) -> None:
        """Lift the partition to the decider of this build, unless somebody has."""
        while isinstance(self._state, Ledger6):
            mark = upgrade.mark(self._state)
            appended = await self._log.append([encode(mark)])
            if appended is not None:
                self._take_time(appended)
                await self._fold_upgrade(mark, appended)
                _log.info("decisions[%d]: lifted from decider %d to %d", self._partition, mark.from_, mark.to)
            else:
                await self.catch_up(seen)

    async def write(self, records: Sequence[LogRecord], values: Sequence[bytes]) -> bool:
        """Append what was applied since ``ledger.begin``; False undoes it, and ``catch_up`` must follow.

        ``values`` are the encoded ``records``.
        """
        source = self._log.position.source
        span = span_of(records, self.ledger.position.next_request if source == UNKNOWN else source)
        began = monotonic_ms()
        appended = await self._log.append(values, span=span)
        if appended is None:
            self.ledger.rollback()
            return False
        self._clock_watch.acknowledged(self._partition, appended, monotonic_ms() - began)
        if any(landed(record, appended) is not record for record in records):
            # a tick of a fast clock: it was applied as it was written, and counts for less where it lies
            self.ledger.rollback()
            for record in records:
                self.ledger.apply(landed(record, appended))
        self.ledger.commit()
        self._since_snapshot += len(records)
        self._take_time(appended)
        return True

    async def behind(self) -> bool:
        return await self._log.behind()

    async def catch_up(self, seen: Fold) -> None:
        """Fold the records of others, up to the end."""
        while await self._log.behind():
            skipped = self._log.skipped
            for nth, entry in enumerate(await self._log.catch_up(), 1):
                record = self._decode(entry)
                if await self._fold(record, entry):
                    seen(record)
                if not nth % _FOLDED_AT_ONCE:
                    await asyncio.sleep(0)
            if self._log.skipped > skipped:
                count = self._log.skipped - skipped
                _log.warning("decisions[%d]: passed over %d records of no valid batch", self._partition, count)

    async def _fold(self, record: LogRecord, entry: Entry) -> bool:
        """Fold a record in; False for an outcome of nothing that is open, which changes nothing."""
        self._since_snapshot += 1
        self._take_time(entry.time)
        if isinstance(record, SnapshotMark):
            await self._fold_mark(record)
            self._pass_mark(record)
            return True
        if isinstance(record, Upgrade):
            await self._fold_upgrade(record, entry.time)
            return True
        try:
            self._state = upgrade.fold(self._state, record, entry.time)
        except Fatal as error:
            if not isinstance(record, Outcome):
                raise
            # whoever folds the log passes it over, and the verifier calls it a fault
            _log.error("decisions[%d] %d changes nothing: %s", self._partition, entry.offset, error)
            return False
        return True

    async def snapshot(self) -> bool:
        """Store the ledger and say so in the log; False where another writer came first."""
        if await self._log.behind():
            # one that fell asleep must not write over what its peer has marked meanwhile
            return False
        snapshot = await store_snapshot(self._publisher, self._partition, self._slot, self._log.position, self.ledger)
        self.ledger.begin()
        await self._fold_mark(snapshot)
        if not await self.write([snapshot], [encode(snapshot)]):
            return False
        self._pass_mark(snapshot)
        return True

    def wants_snapshot(self, every: int, now: int) -> bool:
        """Tell whether a snapshot is due, ``every`` so many records or by its age at ``now``, Unix ms of the broker.

        Of a large ledger fewer are written.
        """
        by_age = self._marked and now - self._marked >= SNAPSHOT_MS
        return bool(by_age) or self._since_snapshot >= records_between(every, self._chunks)

    async def close(self) -> None:
        await self._log.close()

    async def _fold_mark(self, record: SnapshotMark) -> None:
        if isinstance(self._state, Ledger6):
            self._state.apply(record)
        else:
            for _ in self._state.apply_mark(record):
                await asyncio.sleep(0)

    async def _fold_upgrade(self, record: Upgrade, appended: int) -> None:
        # in a thread: a large ledger takes seconds to convert
        self._state = await asyncio.to_thread(upgrade.fold, self._state, record, appended)

    def _pass_mark(self, record: SnapshotMark) -> None:
        """Count anew from a mark that is in the log; its snapshot, whoever wrote it, is not to be written over."""
        self._slot = (record.slot + 1) % _SLOTS
        self._since_snapshot, self._chunks = 0, record.chunks
        self._marked = self._newest

    def _take_time(self, appended: int) -> None:
        self._newest = appended
        self._marked = self._marked or appended

    def _decode(self, entry: Entry) -> LogRecord:
        if entry.record is not None:
            return entry.record
        try:
            return decode_log(entry.value)
        except Malformed as error:
            raise Fatal(f"decisions[{self._partition}] {entry.offset} is valid but unreadable: {error}") from error


def records_between(every: int, chunks: int) -> int:
    """Give the records between two snapshots of so many chunks: at least as many bytes as those take."""
    return max(every, (chunks - 1) * _RECORDS_PER_CHUNK)


def span_of(records: Sequence[LogRecord], at: int) -> tuple[int, int]:
    """Give the offsets of ``requests`` that the records answer, told by the records themselves; ``at`` for none."""
    answered = [record.facts for record in records if isinstance(record, Decision)]
    if not answered:
        return at, at
    return answered[0].start - answered[0].skipped, answered[-1].offset + 1
