"""A snapshot goes out in chunks while others run, and comes back whole or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pipeline.admit.history import records_between
from pipeline.admit.idempotency import digest_of
from pipeline.admit.journal import UndoJournal
from pipeline.admit.ledger import Ledger
from pipeline.admit.stored_snapshots import _CHUNK_BYTES, _complete, _read, store_snapshot
from pipeline.errors import Malformed
from pipeline.events.chain import Position
from pipeline.events.codec import encode
from pipeline.events.records import SnapshotChunk, SnapshotMark

T = 1_790_000_000_000


class Topic:
    """A compacted topic of one partition."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.largest = 0

    async def send_all(self, records: list[Any]) -> None:
        self.largest = max(self.largest, sum(len(value) for _, _, _, value, _ in records))
        for topic, partition, key, value, _ in records:
            assert (topic, partition) == ("snapshots", 3)
            self.values[key] = value

    def images(self) -> list[SnapshotChunk]:
        chunks = [_read(value) for value in self.values.values()]
        return _complete({(chunk.slot, chunk.chunk): chunk for chunk in chunks})


def ledger_of(keys: int, accounts: int) -> Ledger:
    ledger = Ledger()
    for number in range(keys):
        ledger.idempotency.hold(digest_of("ann", str(number)), number, T, UndoJournal())
    ledger.accounts.packed.update({f"account-{number}": bytes(1000) for number in range(accounts)})
    ledger.sequences.update({f"tenant-{number}": number for number in range(5000)})
    return ledger


def store(topic: Topic, slot: int, position: int, ledger: Ledger) -> SnapshotMark:
    at = Position(position, b"chain", 0)
    return asyncio.run(store_snapshot(topic, 3, slot, at, ledger))  # type: ignore[arg-type]


def test_a_large_ledger_comes_back_as_it_was() -> None:
    topic, ledger = Topic(), ledger_of(20_000, 2_000)
    mark = store(topic, 1, 77, ledger)
    assert (mark.digest, mark.slot, mark.chunks, mark.position) == (ledger.digest(), 1, len(topic.values), 77)
    assert mark.chunks == -(-len(ledger.dump()) // _CHUNK_BYTES) > 4
    assert topic.largest < 4 * _CHUNK_BYTES, "never in memory as a whole"
    (image,) = topic.images()
    assert (image.content, image.position, image.chain, image.digest) == (ledger.dump(), 77, b"chain", mark.digest)
    assert Ledger.load(image.content).dump() == ledger.dump()


def test_others_run_while_a_ledger_is_stored() -> None:
    async def scene() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        await store_snapshot(Topic(), 3, 0, Position(), ledger_of(20_000, 2_000))  # type: ignore[arg-type]
        running.cancel()
        return turns

    assert asyncio.run(scene()) > 40


def test_the_newest_whole_snapshot_comes_first() -> None:
    topic = Topic()
    first, second, third = ledger_of(10, 0), ledger_of(20_000, 2_000), ledger_of(30, 600)
    store(topic, 0, 10, first)
    store(topic, 1, 20, second)
    assert [image.position for image in topic.images()] == [20, 10]
    kept = dict(topic.values)
    store(topic, 1, 30, third)
    assert [image.position for image in topic.images()] == [30, 10], "what the shorter one left is of no use"
    # a writer that died half way
    topic.values = {**topic.values, b"3/0/0": kept[b"3/1/0"]}
    assert [image.position for image in topic.images()] == [30]


def test_one_ledger_may_lie_in_both_places() -> None:
    topic, ledger = Topic(), ledger_of(10, 0)
    for slot in (0, 1):
        store(topic, slot, 10, ledger)
    assert [image.content for image in topic.images()] == [ledger.dump()] * 2


def test_snapshots_are_no_more_of_what_is_written_than_the_history() -> None:
    assert [records_between(20_000, chunks) for chunks in (0, 1, 40, 41, 110)] == [20_000] * 3 + [20_480, 55_808]


def test_chunks_of_version_0_1_0_are_read() -> None:
    topic = Topic()
    store(topic, 0, 5, ledger_of(1, 0))
    chunk = _read(topic.values[b"3/0/0"])
    assert _read(encode(chunk)) == chunk


@pytest.mark.parametrize("value", [b"", b"{", b"{}", b"\x80", msgspec.msgpack.encode({"slot": "x"})])
def test_other_bytes_are_no_chunk(value: bytes) -> None:
    with pytest.raises(Malformed):
        _read(value)
