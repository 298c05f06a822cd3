"""Versions of one model under one roof: shares decide, changes lose nothing, the answer says who gave it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping

import pytest

from inference.engines import versions
from inference.engines.echo import EchoEngine
from inference.engines.versions import VersionedEngine
from inference.registry.refusal import ModelRefused
from inference.registry.traffic import WHOLE, choose
from inference.types import Chunk, FinishReason, GenerationRequest, InferenceEngine, Turn

WORDS = "one two three four five six"


class Shelf:
    """Shares that a test sets, and the engines that were made and closed."""

    def __init__(self, shares: Mapping[int, int]) -> None:
        self.shares = dict(shares)
        self.made: Counter[int] = Counter()
        self.closed: Counter[int] = Counter()
        self.broken: dict[int, Exception] = {}
        self.revoked: set[int] = set()

    def load(self, version: int) -> InferenceEngine:
        if version in self.broken:
            raise self.broken[version]
        self.made[version] += 1
        return Closing(self, version)

    def engine(self) -> VersionedEngine:
        return VersionedEngine("tiny", self.load, lambda: self.shares, revoked=lambda: self.revoked)


class Closing(EchoEngine):
    def __init__(self, shelf: Shelf, version: int) -> None:
        super().__init__(delay=0.01)
        self._shelf, self._version = shelf, version

    async def close(self) -> None:
        assert not self._open, "closed while it answers"
        self._shelf.closed[self._version] += 1
        await super().close()


async def ask(engine: VersionedEngine, name: str) -> Chunk:
    request = GenerationRequest(name, "acme", (Turn("user", WORDS),), 16)
    chunks = [chunk async for chunk in engine.submit(request)]
    assert "".join(chunk.text for chunk in chunks) == WORDS
    assert {chunk.version for chunk in chunks[:-1]} == {0}
    return chunks[-1]


def test_the_request_id_alone_decides_and_the_answer_names_its_version() -> None:
    async def scene() -> None:
        shelf = Shelf({1: 5_000, 2: 5_000})
        engine = shelf.engine()
        ends = await asyncio.gather(*(ask(engine, f"r{n}") for n in range(60)))
        assert [end.version for end in ends] == [choose(shelf.shares, "tiny", f"r{n}") for n in range(60)]
        assert {end.version for end in ends} == {1, 2}
        await engine.close()

    asyncio.run(scene())


def test_rolling_out_and_back_under_load_loses_nothing_and_closes_what_left() -> None:
    async def scene() -> None:
        shelf = Shelf({1: WHOLE})
        engine, ends = shelf.engine(), list[Chunk]()

        async def caller(who: int) -> None:
            for n in range(25):
                ends.append(await ask(engine, f"{who}-{n}"))

        async def operator() -> None:
            for shares in ({1: 5_000, 2: 5_000}, {2: WHOLE}, {1: WHOLE}, {3: WHOLE}, {1: WHOLE}):
                shelf.shares = dict(shares)
                await engine.refresh()
                await asyncio.sleep(0.2)

        await asyncio.gather(operator(), *(caller(who) for who in range(8)))
        assert len(ends) == 200
        assert {end.finish for end in ends} == {FinishReason.STOP}
        assert {1, 2} <= {end.version for end in ends}
        async with asyncio.timeout(10):
            while shelf.made.total() - shelf.closed.total() > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert engine.versions == (1,)
        await engine.close()
        assert shelf.made == shelf.closed

    asyncio.run(scene())


def test_a_version_that_cannot_be_loaded_leaves_the_shares_before_in_force() -> None:
    async def scene() -> None:
        shelf = Shelf({1: WHOLE})
        engine = shelf.engine()
        shelf.broken, shelf.shares = {2: ModelRefused("altered", "a byte differs")}, {2: WHOLE}
        with pytest.raises(ModelRefused):
            await engine.refresh()
        await engine.refresh()  # not tried again at once
        assert (await ask(engine, "r")).version == 1
        shelf.shares = {3: WHOLE}
        await engine.refresh()
        assert (await ask(engine, "s")).version == 3
        await engine.close()

    asyncio.run(scene())


def test_where_no_version_has_traffic_nothing_is_served() -> None:
    with pytest.raises(ModelRefused, match="sluice model roll"):
        Shelf({}).engine()

    async def scene() -> None:
        shelf = Shelf({1: WHOLE})
        engine = shelf.engine()
        shelf.shares = {}
        await engine.refresh()
        [chunk] = [c async for c in engine.submit(GenerationRequest("r", "acme", (Turn("user", "x"),), 4))]
        assert chunk.finish is FinishReason.ERROR
        await engine.close()

    asyncio.run(scene())


def test_cancelling_and_asking_for_a_place_reach_a_version_that_is_leaving() -> None:
    async def scene() -> None:
        shelf = Shelf({1: WHOLE})
        engine = shelf.engine()
        running = engine.submit(GenerationRequest("r", "acme", (Turn("user", WORDS * 50),), 16))
        await anext(running)
        shelf.shares = {2: WHOLE}
        await engine.refresh()
        assert await engine.queue_position("r") is not None
        assert engine.cancel("r")
        assert [chunk async for chunk in running][-1].finish is FinishReason.CANCELLED
        assert await engine.queue_position("r") is None
        await engine.close()

    asyncio.run(scene())


def test_a_registry_that_cannot_be_read_is_said_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(versions, "_LOOK_S", 0.001)

    async def scene() -> None:
        looks, stop = 0, asyncio.Event()
        engine = Shelf({1: WHOLE}).engine()

        def broken() -> Mapping[int, int]:
            nonlocal looks
            looks += 1
            raise ModelRefused("state", "no number" if looks < 10 else "no list")

        monkeypatch.setattr(engine, "_read", broken)
        following = asyncio.create_task(engine.follow(stop))
        async with asyncio.timeout(60):
            while looks < 20:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        stop.set()
        await following
        await engine.close()

    asyncio.run(scene())
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == ["no number", "no list"]


def test_whatever_a_loader_raises_the_shares_are_followed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_LOOK_S", 0.01)

    async def scene() -> None:
        shelf, stop = Shelf({1: WHOLE}), asyncio.Event()
        engine = shelf.engine()
        following = asyncio.create_task(engine.follow(stop))
        for version, fault in enumerate((Exception("of a library"), MemoryError(), RuntimeError("no device")), 2):
            shelf.broken, shelf.shares = {version: fault}, {version: WHOLE}
            await asyncio.sleep(0.05)
            assert not following.done()
            assert (await ask(engine, f"r{version}")).version == 1
        shelf.shares = {9: WHOLE}
        async with asyncio.timeout(10):
            while engine.versions != (9,):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stop.set()
        await following
        await engine.close()

    asyncio.run(scene())


@pytest.mark.parametrize("pinned", [True, False], ids=["the version is named outright", "its successor is broken"])
def test_a_revoked_version_gets_nothing_whatever_the_shares(pinned: bool) -> None:
    async def scene() -> None:
        shelf = Shelf({1: WHOLE})
        engine = shelf.engine()
        if not pinned:
            shelf.broken, shelf.shares = {2: ModelRefused("altered", "a byte differs")}, {2: WHOLE}
            with pytest.raises(ModelRefused):
                await engine.refresh()
        assert (await ask(engine, "r")).version == 1
        shelf.revoked = {1}
        with contextlib.suppress(ModelRefused):
            await engine.refresh()
        assert engine.versions == ()
        [chunk] = [c async for c in engine.submit(GenerationRequest("s", "acme", (Turn("user", "x"),), 4))]
        assert chunk.finish is FinishReason.ERROR
        await engine.close()
        assert shelf.made == shelf.closed

    asyncio.run(scene())
