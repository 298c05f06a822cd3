"""A record that the client library cannot decode is handed on as an empty one; nothing before or behind it is lost."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader

AT = TopicPartition("requests", 0)


class Library:
    """As aiokafka: an error in the middle of a batch loses what was read before it, and what stands behind it in the
    batch cannot be read either."""

    def __init__(self, bad: set[int], end: int, fault: Exception) -> None:
        self._bad, self._end, self._fault, self._next = bad, end, fault, 0

    def seek(self, _: TopicPartition, offset: int) -> None:
        self._next = offset

    async def position(self, _: TopicPartition) -> int:
        return self._next

    async def getmany(self, *_: TopicPartition, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found = []
        for offset in range(self._next, min(self._end, self._next + max_records)):
            if offset in self._bad:
                self._next = offset
                raise self._fault
            found.append(SimpleNamespace(offset=offset, timestamp=1000 + offset, key=b"k", value=b"v", headers=()))
        self._next += len(found)
        return {AT: found} if found else {}


class Ends:
    async def begin(self, _: TopicPartition) -> int:
        return 0

    async def end(self, _: TopicPartition) -> int:
        return 9


def read(library: Library) -> list[tuple[int, int, bytes]]:
    async def job() -> list[tuple[int, int, bytes]]:
        reader = PartitionReader(KafkaEndpoint("127.0.0.1:9"), "requests", 0, Ends())  # type: ignore[arg-type]
        genuine, reader._consumer = reader._consumer, library
        await genuine.stop()
        items = [item for _ in range(12) for item in await reader.poll()]
        assert reader.position == 9
        return [(item.offset, item.time, item.value) for item in items]

    return asyncio.run(job())


@pytest.mark.parametrize("bad", [{0}, {4}, {8}, {3, 4, 5}, set(range(9))], ids=str)
@pytest.mark.parametrize(
    "fault",
    [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), UnsupportedCodecError("no zstd")],
    ids=["header name", "codec"],
)
def test_every_record_comes_once_and_in_order(bad: set[int], fault: Exception) -> None:
    found = read(Library(bad, 9, fault))
    assert [offset for offset, _, _ in found] == list(range(9))
    assert {offset for offset, _, value in found if not value} == bad
    times = [time for _, time, _ in found]
    assert times == sorted(times)


def test_damage_is_never_passed_over() -> None:
    with pytest.raises(Retryable, match="CorruptRecord"):
        read(Library({4}, 9, CorruptRecordException("crc")))


def test_closing_what_never_opened_is_no_fault() -> None:
    async def job() -> None:
        await Offsets(KafkaEndpoint("127.0.0.1:9")).close()

    asyncio.run(job())
