"""Reads one partition by plain aiokafka, from a given offset, without a group."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Retryable, Unrecoverable
from pipeline.events.chain import HEADER, Entry
from pipeline.kafka.bounded_batches import PackedBatch
from pipeline.kafka.clients import REQUEST_TIMEOUT_MS, make_consumer
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.shutdown import stop_consumer
from pipeline.metrics import LAG_MESSAGES, LAG_SECONDS, SILENT_SECONDS, MetricSample

_log = logging.getLogger(__name__)
_IDLE_WAIT_MS = 2_000
_BULK_WAIT_MS, _BULK_BYTES = 500, 256 * 1024
STALL_S = 10.0
"""After this long without a record a reader asks whether there are any: aiokafka's fetching was seen to stand still
for good after its broker was killed, with nothing raised."""
Headers = Sequence[tuple[str, bytes]]


class QueuedRecord(NamedTuple):
    """A record was read and waits: its offset and its append time."""

    offset: int
    time: int


class KnownEnd(NamedTuple):
    """A log ends here, as was known at a time (Unix ms)."""

    offset: int
    asked: int


class KafkaRecord:
    """One record of any topic as read: offset, broker time (ms), key, value, headers.

    A batch that is not unpacked comes as one of them: ``value`` is its packed bytes, ``first`` its first offset and
    ``offset`` its last. ``first`` of every other record is -1.
    """

    __slots__ = ("first", "headers", "key", "offset", "time", "value")

    def __init__(self, offset: int, time: int, key: bytes, value: bytes, headers: Headers, first: int = -1) -> None:
        self.offset = offset
        self.time = time
        self.key = key
        self.value = value
        self.headers = headers
        self.first = first

    def entry(self) -> Entry:
        link = next((value for name, value in self.headers if name == HEADER), None)
        return Entry(self.offset, self.time, link, self.value)


class PartitionReader:
    """Reads one partition from a given offset, by assignment; no group, no commits.

    ``bulk`` is for readers in no hurry: up to half a second later, and in far fewer fetches.
    """

    def __init__(
        self, kafka: KafkaEndpoint, topic: str, partition: int, offsets: Offsets | None = None, *, bulk: bool = False
    ) -> None:
        self.topic_partition = TopicPartition(topic, partition)
        self.name = f"{topic}[{partition}]"
        self._offsets = offsets or Offsets(kafka)
        self._shared = offsets is not None
        self._kafka, self._bulk = kafka, bulk
        self._consumer = self._fresh_consumer()
        self._started = False
        self._looked = 0.0
        """When records came last, or the log's end was asked for."""
        self._current = now_ms()
        """Append time up to which everything was read, or the time at which the reader stood at the log's end."""
        self.position = 0

    async def start(self, offset: int | None = 0, known: int = 0) -> None:
        """Open at ``offset``; None is the end. Raises Fatal where the log lacks it or ends below ``known``, Retryable
        without a broker."""
        begin, end = await self.begin(), await self.end()
        if offset is not None and offset < begin:
            raise Fatal(
                f"{self.name} starts at {begin}, but {offset} is needed: retention took "
                "records that were not folded yet. Restore the topic or start a new generation."
            )
        known = max(known, offset or 0)
        if known > end:
            raise self._truncated(end, known)
        if not self._started:
            await self._open(self._consumer)
            self._started = True
        self.seek(end if offset is None else offset)

    async def begin(self) -> int:
        return await self._offsets.begin(self.topic_partition)

    async def end(self) -> int:
        return await self._offsets.end(self.topic_partition)

    async def offset_since(self, time: int) -> int | None:
        """Give the offset of the first record appended at ``time`` (Unix ms) or later, None where there is none."""
        return await self._offsets.since(self.topic_partition, time)

    def seek(self, offset: int) -> None:
        self._consumer.seek(self.topic_partition, offset)
        self.position, self._looked = offset, time.monotonic()
        self._current = now_ms()

    def pause(self) -> None:
        """Stop fetching until ``resume``; what is at hand is dropped by the next ``seek``."""
        self._consumer.pause(self.topic_partition)

    def resume(self) -> None:
        self._consumer.resume(self.topic_partition)

    async def poll(self, limit: int = 1000, wait_ms: int = 200) -> list[KafkaRecord]:
        """Give up to ``limit`` records in offset order; none after ``wait_ms`` without any.

        Records that cannot be unpacked come as one (``bounded_batches``): a writer of bad records cannot block the
        topic.
        """
        records = await self._fetch(limit, wait_ms)
        now = time.monotonic()
        if records:
            self._looked = now
        elif now - self._looked > STALL_S:
            self._looked = now
            if await self.end() > self.position:
                await self._reopen()
        return records

    async def _fetch(self, limit: int, wait_ms: int) -> list[KafkaRecord]:
        try:
            fetched = await self._consumer.getmany(self.topic_partition, timeout_ms=wait_ms, max_records=limit)
        except KafkaError as error:
            raise await self._fault(error) from error
        records = [
            KafkaRecord(r.offset, r.timestamp, r.key or b"", r.value or b"", r.headers)
            for r in fetched.get(self.topic_partition, ())
        ]
        for record in records:
            if isinstance(record.value, PackedBatch):
                record.first = max(record.value.first, self.position)
        if records:
            self.position, self._current = records[-1].offset + 1, records[-1].time
        else:
            # the markers of a transaction take offsets and bring no record
            self.position = max(self.position, await self._consumer.position(self.topic_partition))
        if self.position >= self._known_end().offset:
            self._current = now_ms()
        return records

    def lag(self, oldest: QueuedRecord | None = None) -> list[MetricSample]:
        """Tell how far the work on this partition is behind, from what fetches brought; nothing where none has yet.

        ``oldest`` is the first record that was read and is not done with.
        """
        end = self._known_end()
        if end.asked < 0:
            return []
        now = now_ms()
        first, since = oldest or QueuedRecord(self.position, self._current)
        messages = max(0, end.offset - first)
        labels = (self.topic_partition.topic, str(self.topic_partition.partition))
        return [
            MetricSample(LAG_MESSAGES, messages, labels),
            MetricSample(LAG_SECONDS, max(0, now - since) / 1000 if messages else 0, labels),
            MetricSample(SILENT_SECONDS, max(0, now - end.asked) / 1000, labels),
        ]

    def _known_end(self) -> KnownEnd:
        """Give the log's end as the last fetch told it; (0, -1) before the first."""
        source = self.topic_partition
        if source not in self._consumer.assignment() or self._consumer.highwater(source) is None:
            return KnownEnd(0, -1)
        return KnownEnd(self._consumer.highwater(source), self._consumer.last_poll_timestamp(source))

    async def read_to_end(self) -> list[KafkaRecord]:
        """Read everything from the position to the log's end as of now. A log that ends before it is Fatal."""
        end = await self.end()
        if end < self.position:
            raise self._truncated(end, self.position)
        records: list[KafkaRecord] = []
        while self.position < end:
            records += await self.poll(5000)
        return records

    async def close(self) -> None:
        await stop_consumer(self._consumer)
        if not self._shared:
            await self._offsets.close()

    def _fresh_consumer(self) -> AIOKafkaConsumer:
        return make_consumer(
            self._kafka,
            auto_offset_reset="none",
            # a record ends the wait at once, so a longer one costs nothing but saves idle fetches
            fetch_max_wait_ms=_BULK_WAIT_MS if self._bulk else _IDLE_WAIT_MS,
            fetch_min_bytes=_BULK_BYTES if self._bulk else 1,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )

    async def _open(self, consumer: AIOKafkaConsumer) -> None:
        try:
            await consumer.start()
        except KafkaError as error:
            raise Retryable(f"{self.name}: {error!r}") from error
        consumer.assign([self.topic_partition])

    async def _reopen(self) -> None:
        _log.warning("%s: records wait, but none come; reading anew", self.name)
        fresh = self._fresh_consumer()
        try:
            await self._open(fresh)
        except Retryable:
            await stop_consumer(fresh)
            raise
        stuck, self._consumer = self._consumer, fresh
        self.seek(self.position)
        await stop_consumer(stuck)

    def _truncated(self, end: int, known: int) -> Unrecoverable:
        return Unrecoverable(
            f"{self.name} ends at {end}, below {known}, up to which it was read before: "
            "the log was truncated. Do not go on; compare replicas, then restore or start a new generation."
        )

    async def _fault(self, error: KafkaError) -> Exception:
        begin, end = await self.begin(), await self.end()
        if not begin <= self.position <= end:
            return Fatal(
                f"{self.name} holds {begin} to {end}, but {self.position} comes next: "
                "records were cut away. Restore the topic or start a new generation."
            )
        return Retryable(f"{self.name}: {error!r}")
