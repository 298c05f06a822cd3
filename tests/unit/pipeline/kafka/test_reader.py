"""A record that cannot be read costs itself alone; nothing before or behind it is lost."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBase

from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import KafkaRecord, PartitionReader, QueuedRecord
from pipeline.metrics import MetricSample
from tests.kafka_batches import batch, record

AT = TopicPartition("requests", 0)
ASKED = 1_000
APPENDED = DefaultRecordBase.TIMESTAMP_TYPE_MASK
"""The batch's time is that of its append."""


def last(stored: bytes) -> int:
    """The last offset of a batch."""
    head = DefaultRecordBase.HEADER_STRUCT.unpack_from(stored)
    return int(head[0] + head[6])


class Library:
    """As aiokafka: its own fetcher reads what a response holds, and an error loses the rest of it."""

    def __init__(self, batches: list[bytes]) -> None:
        self._batches, self._next = batches, 0

    def seek(self, _: TopicPartition, offset: int) -> None:
        self._next = offset

    def assignment(self) -> set[TopicPartition]:
        return {AT}

    def highwater(self, _: TopicPartition) -> int:
        return last(self._batches[-1]) + 1

    def last_poll_timestamp(self, _: TopicPartition) -> int:
        return ASKED

    async def position(self, _: TopicPartition) -> int:
        return self._next

    async def getmany(self, *_: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        records = fetcher.MemoryRecords(b"".join([stored for stored in self._batches if last(stored) >= self._next]))
        reading = fetcher.PartitionRecords(AT, records, [], self._next, None, None, True, 0)
        found = list(islice(reading, max_records))
        self._next = reading.next_fetch_offset
        return {AT: found} if found else {}


class Ends:
    async def begin(self, _: TopicPartition) -> int:
        return 0

    async def end(self, _: TopicPartition) -> int:
        return 9


def read(library: Library) -> list[KafkaRecord]:
    async def job() -> list[KafkaRecord]:
        reader = PartitionReader(KafkaEndpoint("127.0.0.1:9"), "requests", 0, Ends())  # type: ignore[arg-type]
        genuine, reader._consumer = reader._consumer, library
        await genuine.stop()
        items = [item for _ in range(12) for item in await reader.poll()]
        assert reader.position == 9
        return items

    return asyncio.run(job())


def content(bad: set[int], fault: str) -> list[bytes]:
    """Nine records, the bad ones with a header name that is no text, or each in a batch of no known codec."""
    if fault == "header name":
        return [batch(b"".join([record(n, b"v", b"\xff" if n in bad else b"name") for n in range(9)]), 9)]
    return [batch(record(0, b"v"), 1, APPENDED | (7 if n in bad else 0), n) for n in range(9)]


@pytest.mark.parametrize("bad", [{0}, {4}, {8}, {3, 4, 5}, set(range(9))], ids=str)
@pytest.mark.parametrize("fault", ["header name", "codec"])
def test_every_record_comes_once_and_in_order(bad: set[int], fault: str) -> None:
    found = read(Library(content(bad, fault)))
    assert [record.offset for record in found] == list(range(9))
    unread = {r.offset for r in found if r.first >= 0 or "name" not in dict(r.headers or {"name": b""})}
    assert unread == bad
    times = [record.time for record in found]
    assert times == sorted(times)


def test_a_batch_that_is_not_unpacked_begins_where_the_reader_stands() -> None:
    async def job() -> None:
        reader = PartitionReader(KafkaEndpoint("127.0.0.1:9"), "requests", 0, Ends())  # type: ignore[arg-type]
        genuine, reader._consumer = reader._consumer, Library([batch(b"?", 9, 7)])
        await genuine.stop()
        reader.seek(4)
        (unread,) = await reader.poll()
        assert (unread.first, unread.offset, reader.position) == (4, 8, 9)

    asyncio.run(job())


def test_damage_is_never_passed_over() -> None:
    batches = content(set(), "codec")
    damaged = bytearray(batches[4])
    damaged[-2] ^= 1
    with pytest.raises(Retryable, match="CorruptRecord"):
        read(Library([*batches[:4], bytes(damaged), *batches[5:]]))


def test_closing_what_never_opened_is_no_fault() -> None:
    async def job() -> None:
        await Offsets(KafkaEndpoint("127.0.0.1:9")).close()

    asyncio.run(job())


def test_the_lag_is_that_of_what_is_not_done_with() -> None:
    async def job() -> None:
        reader = PartitionReader(KafkaEndpoint("127.0.0.1:9"), "requests", 0, Ends())  # type: ignore[arg-type]
        genuine, reader._consumer = reader._consumer, Library(content(set(), "codec"))
        await genuine.stop()
        now, where = now_ms(), ("requests", "0")
        reader.seek(0)
        behind, _, silent = reader.lag()
        assert behind == MetricSample("sluice_lag_messages", 9, where)
        assert silent.value * 1000 >= now - ASKED
        await reader.poll(limit=9)
        assert [reading.value for reading in reader.lag()[:2]] == [0, 0]
        messages, seconds, _ = reader.lag(QueuedRecord(5, now - 60_000))
        assert messages == MetricSample("sluice_lag_messages", 4, where)
        assert (seconds.name, seconds.labels) == ("sluice_lag_seconds", where)
        assert seconds.value >= 60

    asyncio.run(job())


def test_a_log_of_which_no_fetch_told_has_no_lag() -> None:
    async def job() -> None:
        reader = PartitionReader(KafkaEndpoint("127.0.0.1:9"), "requests", 0, Ends())  # type: ignore[arg-type]
        assert reader.lag() == []
        await reader.close()

    asyncio.run(job())
