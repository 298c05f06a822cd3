"""A key is looked for in all of ``control`` before it is called unknown; a flood of wrong ones shares few looks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pipeline.control import table as control_table
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.events.control import Organisation
from pipeline.kafka.reader import KafkaRecord


class Log:
    """The reader of ``control``: ``written`` is in the log, ``follow`` gets the first ``shown`` of it."""

    def __init__(self) -> None:
        self.written: list[KafkaRecord] = []
        self.shown, self.position, self.looks = 0, 0, 0
        self.gone = False

    def write(self) -> None:
        at = len(self.written)
        document = Organisation(id=f"o{at}").model_dump_json().encode()
        self.written.append(KafkaRecord(at, at, b"", document, ()))

    async def end(self) -> int:
        self.looks += 1
        if self.gone:
            raise Retryable("no broker")
        await asyncio.sleep(0)
        return len(self.written)

    async def poll(self, limit: int = 1000, wait_ms: int = 200) -> list[KafkaRecord]:
        await asyncio.sleep(0.001)
        found = self.written[self.position : self.shown]
        self.position = max(self.position, self.shown)
        return found


def play(test: Callable[[ControlTable, Log], Awaitable[None]]) -> None:
    async def job() -> None:
        table, log, stop = ControlTable(KafkaEndpoint("127.0.0.1:9"), ""), Log(), asyncio.Event()
        await table.close()
        table._reader = log  # type: ignore[assignment]
        following = asyncio.create_task(table.follow(stop))
        await test(table, log)
        stop.set()
        await following

    asyncio.run(job())


def test_what_was_written_before_the_call_has_been_read_after_it() -> None:
    async def test(table: ControlTable, log: Log) -> None:
        log.write()
        asked = asyncio.create_task(table.caught_up())
        await asyncio.sleep(0.2)
        assert not asked.done()
        log.shown = 1
        assert await asked
        assert "o0" in table.control.organisations

    play(test)


def test_a_flood_shares_looks_and_none_relies_on_a_look_that_began_before_it() -> None:
    async def test(table: ControlTable, log: Log) -> None:
        log.write()
        log.shown = 1
        assert all(await asyncio.gather(*(table.caught_up() for _ in range(500))))
        assert log.looks == 1
        assert await table.caught_up()
        assert log.looks == 2

    play(test)


def test_a_caller_that_goes_away_leaves_the_look_to_the_next() -> None:
    async def test(table: ControlTable, log: Log) -> None:
        log.write()
        log.shown = 1
        first, second = asyncio.create_task(table.caught_up()), asyncio.create_task(table.caught_up())
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        assert log.looks == 1

    play(test)


def test_a_log_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_table, "_LOOK_S", 0.2)

    async def test(table: ControlTable, log: Log) -> None:
        log.gone = True
        assert not await table.caught_up()
        log.gone = False
        log.write()
        assert not await table.caught_up(), "the record never came"

    play(test)
