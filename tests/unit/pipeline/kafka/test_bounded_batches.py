"""What a fetch brings is unpacked within bounds, by the library's own fetcher as installed."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import calc_crc32c

from pipeline.kafka import bounded_batches, clients
from pipeline.kafka.bounded_batches import MAX_BATCH_RECORDS, MAX_UNPACKED_BYTES, BoundedRecords, PackedBatch
from tests.kafka_batches import CODECS, TIME, batch, big_bomb, many_bomb, packed, plain, record, varint

AT = TopicPartition("requests", 0)
PACKERS = [codec for codec in CODECS if codec]
MIB = 1024 * 1024


def fetched(content: bytes, offset: int = 0) -> Any:
    """As the library reads a response whose fetch was from ``offset``."""
    assert clients.REQUEST_TIMEOUT_MS
    return fetcher.PartitionRecords(AT, fetcher.MemoryRecords(content), [], offset, None, None, True, 0)


def spans(content: bytes, offset: int = 0) -> list[tuple[int, int]]:
    """First and last offset of everything that is handed on; a record is its own first."""
    return [
        (r.value.first if isinstance(r.value, PackedBatch) else r.offset, r.offset) for r in fetched(content, offset)
    ]


def test_the_fetcher_of_the_library_as_installed_reads_by_this() -> None:
    assert fetcher.MemoryRecords is BoundedRecords
    assert "MemoryRecords(part_data[-1])" in __import__("inspect").getsource(fetcher.Fetcher._proc_fetch_request)


@pytest.mark.parametrize("codec", CODECS)
def test_honest_batches_come_record_by_record(codec: str) -> None:
    content = plain([b"a", b"b"], codec) + plain([b"c" * 100_000], codec, 2)
    reading = fetched(content)
    assert [(r.offset, r.value) for r in reading] == [(0, b"a"), (1, b"b"), (2, b"c" * 100_000)]
    assert reading.next_fetch_offset == 3
    assert [r.offset for r in fetched(content, 1)] == [1, 2]


@pytest.mark.parametrize("codec", PACKERS)
def test_one_big_value_is_not_unpacked(codec: str) -> None:
    size = 100 * MIB if codec in ("gzip", "zstd") else 40 * MIB
    content = big_bomb(codec, size) + plain([b"honest"], base=1)
    tracemalloc.start()
    (bomb, honest) = fetched(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(bomb.value, PackedBatch)
    assert (bomb.value.first, bomb.offset, bomb.timestamp, bomb.headers) == (0, 0, TIME, ())
    assert honest.value == b"honest"
    assert peak < 5 * MAX_UNPACKED_BYTES


@pytest.mark.parametrize("codec", CODECS)
def test_very_many_records_are_counted_by_the_header_alone(codec: str) -> None:
    count = MAX_BATCH_RECORDS + 1
    content = many_bomb(codec, count) if codec else batch(b"".join(record(n, b"") for n in range(count)), count)
    assert spans(content + plain([b"honest"], base=count)) == [(0, count - 1), (count, count)]


@pytest.mark.parametrize("codec", PACKERS)
def test_the_bound_is_of_what_comes_out(codec: str) -> None:
    """A batch of exactly so much is read, one byte more is not."""
    frame = len(record(0, bytes(MAX_UNPACKED_BYTES - 100))) - MAX_UNPACKED_BYTES + 100
    fits = MAX_UNPACKED_BYTES - frame
    (whole,) = fetched(big_bomb(codec, fits))
    assert whole.value == bytes(fits)
    (over,) = fetched(big_bomb(codec, fits + 1))
    assert isinstance(over.value, PackedBatch)


BROKEN = {
    "a codec that does not exist": batch(b"x", 5, 7),
    "no gzip": batch(b"x" * 90, 5, 1),
    "cut gzip": batch(packed("gzip", [b"x" * 90])[:-9], 5, 1),
    "many members of gzip": batch(gzip.compress(b"") * 9, 5, 1),
    "no snappy": batch(b"\xff" * 90, 5, 2),
    "a snappy that lies about its size": batch(b"\xff\xff\xff\xff\x0f", 5, 2),
    "a snappy of a block of no size": batch(b"\x82SNAPPY\0" + bytes(12), 5, 2),
    "a snappy of half a length": batch(b"\x82SNAPPY\0" + bytes(11), 5, 2),
    "no lz4": batch(b"x" * 90, 5, 3),
    "cut zstd": batch(packed("zstd", [b"x" * 90])[:-3], 5, 4),
    "fewer records than it says": batch(record(0, b"x")[:-2], 5),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_unpack_stands_for_all_its_offsets_and_stops_nothing(name: str) -> None:
    content = BROKEN[name] + plain([b"honest"], base=5)
    assert spans(content) == [(0, 4), (5, 5)]
    assert spans(content, 5) == [(5, 5)]


def test_records_before_the_damage_are_read() -> None:
    content = batch(record(0, b"a") + record(1, b"b") + b"\x7f", 4) + plain([b"honest"], base=4)
    assert spans(content) == [(0, 0), (1, 1), (2, 3), (4, 4)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bad", [{0}, {4}, {8}, {3, 4, 5}, set(range(9))], ids=str)
def test_a_header_that_is_no_text_costs_its_own_record_only(bad: set[int], codec: str) -> None:
    payload = b"".join([record(n, b"v%d" % n, b"\xff" if n in bad else b"name") for n in range(9)])
    content = batch(packed(codec, [payload]) if codec else payload, 9, CODECS[codec])
    found = list(fetched(content))
    assert [(r.offset, r.value) for r in found] == [(n, b"v%d" % n) for n in range(9)]
    assert {r.offset for r in found if r.headers[0][0] != "name"} == bad


@pytest.mark.parametrize(
    ("deltas", "found"),
    [
        ([0, 1_000_000, 2], [(0, 0), (1, 2), (3, 3)]),
        ([0, 0, 2], [(0, 0), (1, 2), (3, 3)]),
        ([0, 2, 1], [(0, 0), (1, 2), (3, 3)]),
        ([-1, 1, 2], [(0, 2), (3, 3)]),
        ([1, 2, 3], [(0, 2), (3, 3)]),
    ],
)
def test_a_record_that_lies_about_its_offset_moves_no_reader(deltas: list[int], found: list[tuple[int, int]]) -> None:
    content = batch(b"".join([record(delta, b"x") for delta in deltas]), 3) + plain([b"honest"], base=3)
    assert spans(content) == found


def test_a_compacted_batch_has_holes() -> None:
    payload = record(1, b"b") + record(4, b"e")
    tail = struct.pack(">hiqqqhii", 0, 5, TIME, TIME, -1, -1, -1, 2) + payload
    content = struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, calc_crc32c(tail)) + tail
    assert spans(content) == [(1, 1), (4, 4)]


def test_a_length_that_leads_far_behind_a_batch_is_not_followed() -> None:
    """In a process of its own: what it is about ends one."""
    far = b"\0" + varint(0) + varint(1) + varint(2**31)
    payload = record(0, b"a", b"\xff") + varint(len(far)) + far
    code = f"""
from pipeline.kafka.bounded_batches import BoundedBatch
found = list(BoundedBatch({batch(payload, 2)!r}))
assert [(r.offset, getattr(r.value, "first", None)) for r in found] == [(0, None), (1, 1)]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_damage_is_never_passed_over() -> None:
    content = bytearray(plain([b"a"]))
    content[-2] ^= 1
    with pytest.raises(CorruptRecordException):
        list(fetched(bytes(content)))


def test_the_rest_of_a_response_waits_for_the_next_one() -> None:
    whole = plain([b"a"])
    records = BoundedRecords(whole + whole[:40])
    assert records.has_next()
    assert records.next_batch() is not None
    assert not records.has_next()
    assert records.next_batch() is None
    assert not BoundedRecords(whole[:11]).has_next()
    assert not BoundedRecords(b"\0" * 8 + b"\xff" * 40).has_next()


def test_consumers_in_several_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust reads in a thread of its own."""
    unpack = bounded_batches._CODECS[CODECS["lz4"]]

    def slowly(stored: bytes) -> int:
        size = unpack(stored)
        time.sleep(0.01)
        return size

    monkeypatch.setitem(bounded_batches._CODECS, CODECS["lz4"], slowly)

    def job(letter: int) -> bool:
        value = bytes([letter]) * 100_000
        return all(r.value == value for r in fetched(b"".join([plain([value], "lz4", n) for n in range(9)])))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(job, range(4)))
