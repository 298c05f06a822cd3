"""A writer stores snapshots beside the newest that has a mark, never over it, and not before they are due."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.admit import upgrade
from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.history import SNAPSHOT_MS, History
from pipeline.admit.idempotency import digest_of
from pipeline.admit.ledger import Ledger
from pipeline.admit.stored_snapshots import _read
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import Entry, Position
from pipeline.events.codec import encode
from pipeline.events.records import LogRecord, SnapshotMark, Tick

T = 1_790_000_000_000


class Log:
    """A log in which another writer may come first."""

    def __init__(self) -> None:
        self.position, self.skipped = Position(), 0
        self.lost, self.time = False, T
        self.of_others: list[Entry] = []

    async def append(self, values: Sequence[bytes], **_: Any) -> int | None:
        return None if self.lost else self.time

    async def behind(self) -> bool:
        return bool(self.of_others)

    async def catch_up(self) -> list[Entry]:
        found, self.of_others = self.of_others, []
        return found

    async def close(self) -> None:
        pass


class Publisher:
    def __init__(self) -> None:
        self.slots: list[int] = []

    async def send_all(self, records: list[Any]) -> None:
        self.slots += [_read(value).slot for _, _, _, value, _ in records]


class Clock:
    def acknowledged(self, *_: object) -> None:
        pass


async def scene(acts: str) -> tuple[History, list[int]]:
    """Each act: s snapshot, l a lost race for one, 0 or 1 another's snapshot there, t a record of another."""
    log, publisher = Log(), Publisher()
    history = History(KafkaEndpoint("127.0.0.1:1"), 0, None, publisher, Clock())  # type: ignore[arg-type]
    unused, history._log = history._log, log  # type: ignore[assignment]
    await unused.close()
    history._state = Ledger()
    for act in acts:
        if act in "sl":
            log.lost = act == "l"
            assert await history.snapshot() is not log.lost
        else:
            record: LogRecord = Tick(T) if act == "t" else SnapshotMark(T, 9, b"", int(act), 1)
            log.of_others = [Entry(0, T, None, encode(record))]
            await history.catch_up(lambda _: None)
    return history, publisher.slots


@pytest.mark.parametrize(
    ("acts", "slots"),
    [
        ("sss", [0, 1, 0]),
        ("slls", [0, 1, 1, 1]),
        ("l0s", [0, 1]),
        ("0s", [1]),
        ("s1s", [0, 0]),
        ("s0s", [0, 1]),
    ],
)
def test_a_snapshot_lies_beside_the_newest_that_is_marked(acts: str, slots: list[int]) -> None:
    assert asyncio.run(scene(acts))[1] == slots


@pytest.mark.parametrize(("acts", "due"), [("", 0), ("tt", 2), ("tts", 0), ("tt1t", 1), ("sttl", 2)])
def test_records_are_counted_from_the_newest_mark_on(acts: str, due: int) -> None:
    history, _ = asyncio.run(scene(acts))
    assert history.wants_snapshot(due, T)
    assert not history.wants_snapshot(due + 1, T)


def test_a_snapshot_is_due_by_the_age_of_the_newest_also_where_nothing_is_written() -> None:
    async def job() -> None:
        history, _ = await scene("")
        assert not history.wants_snapshot(1, T + 10 * SNAPSHOT_MS), "a log without records needs none"
        history, _ = await scene("t")
        assert [history.wants_snapshot(9, T + age) for age in (SNAPSHOT_MS - 1, SNAPSHOT_MS)] == [False, True]
        history._log.time = T + SNAPSHOT_MS  # type: ignore[attr-defined]
        assert await history.snapshot()
        ages = (SNAPSHOT_MS, 2 * SNAPSHOT_MS - 1, 2 * SNAPSHOT_MS)
        assert [history.wants_snapshot(9, T + age) for age in ages] == [False, False, True]

    asyncio.run(job())


def test_a_writer_that_fell_behind_writes_no_chunk_over_what_is_marked() -> None:
    async def job() -> None:
        history, slots = await scene("s")
        history._log.of_others = [Entry(0, T, None, encode(SnapshotMark(T, 9, b"", 1, 1)))]  # type: ignore[attr-defined]
        assert not await history.snapshot()
        assert slots == [0]

    asyncio.run(job())


@pytest.mark.parametrize("own", [True, False], ids=["written here", "written by another"])
def test_other_partitions_go_on_while_a_ledger_is_converted(own: bool) -> None:
    async def job() -> None:
        history, _ = await scene("")
        stored = Ledger6().stored
        stored.idempotent.update({f"ann/{n}": (f"g1-0-{n}", T) for n in range(100_000)})
        history._state = Ledger6(stored)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        beside = asyncio.create_task(others())
        mark = upgrade.mark(history._state)
        if own:
            await history.lift(lambda _: None)
        else:
            history._log.of_others = [Entry(0, T, None, encode(mark))]  # type: ignore[attr-defined]
            await history.catch_up(lambda _: None)
        beside.cancel()
        assert history.ledger.idempotency.holder(digest_of("ann", "7"), T) == 7
        assert turns > 10

    asyncio.run(job())
