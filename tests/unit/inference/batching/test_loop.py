"""The thread around batches serves callers of several event loops, and tells each of them how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Sequence as Items

import pytest

from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.ports import LogitsRow, Move, StepInput
from inference.types import Chunk, EngineClosed, FinishReason
from tests.unit.inference.batching.batches import run_batch
from tests.unit.inference.doubles import HashForward, check_answer, collect, request, until


def test_a_full_engine_refuses_and_serves_on() -> None:
    async def run() -> None:
        engine = BatchingEngine(HashForward(slots=1), ("m",), BatchOptions(max_waiting=0))
        asked = [request(f"r{n}", f"text {n}", limit=20) for n in range(6)]
        answers = await asyncio.gather(*(collect(engine.submit(one)) for one in asked))
        failed = [chunks for chunks in answers if chunks[-1].finish is FinishReason.ERROR]
        assert 0 < len(failed) < 6
        assert all("full" in str(chunks[-1].error) for chunks in failed)
        again = request("again", limit=2)
        check_answer(await collect(engine.submit(again)), again)
        await engine.close()

    asyncio.run(run())


class Broken(HashForward):
    """Fails where no single request is to blame."""

    def rearrange(self, moves: Items[Move]) -> None:
        raise MemoryError("secret")


def test_an_engine_that_cannot_go_on_tells_everyone() -> None:
    async def run() -> None:
        engine = BatchingEngine(Broken(slots=2), ("m",))
        asked = [request(f"r{n}", f"text {n}", limit=5) for n in range(4)]
        answers = await asyncio.gather(*(collect(engine.submit(one)) for one in asked))
        assert {chunks[-1].error for chunks in answers} == {"the engine stopped on MemoryError; start a new one"}
        with pytest.raises(EngineClosed):
            await collect(engine.submit(request("late")))
        await engine.drain()
        await engine.close()

    asyncio.run(run())


def test_a_caller_whose_loop_is_gone_does_not_hold_its_slot() -> None:
    forward = HashForward(slots=1, max_context=100_000, ends=False)
    engine = BatchingEngine(forward, ("m",))

    async def begin() -> None:
        held.append(engine.submit(request("orphan", "x", limit=5_000)))
        await anext(held[0])

    held: list[AsyncIterator[Chunk]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    asked = request("next", limit=3)
    chunks = asyncio.run(collect(engine.submit(asked)))
    check_answer(chunks, asked)
    assert engine.stats().tokens_generated < 5_000
    asyncio.run(engine.close())
    assert forward.faults == []


def test_giving_up_an_ended_answer_spares_a_later_one_of_the_same_id() -> None:
    async def run() -> None:
        engine = BatchingEngine(HashForward(ends=False), ("m",))
        first = engine.submit(request("same", "x", limit=2))
        await anext(first)
        await until(lambda: engine.stats().tokens_generated == 2 and not engine.cancel("same"))
        later = request("same", "x", limit=100)
        second = engine.submit(later)
        chunks = [await anext(second)]
        await first.aclose()
        chunks += await collect(second)
        check_answer(chunks, later)
        assert chunks[-1].finish is FinishReason.LENGTH
        await engine.close()

    asyncio.run(run())


class Short(HashForward):
    """Gives fewer rows than asked for."""

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow]:
        super().logits(inputs)
        return []


def test_missing_rows_are_a_fault_and_no_hang() -> None:
    asked = request("r", limit=5)
    chunks = run_batch([(0, asked)], Short())["r"]
    assert chunks[-1].finish is FinishReason.ERROR


def test_one_loop_per_caller() -> None:
    """Callers on different event loops share one engine."""
    engine = BatchingEngine(HashForward(), ("m",))

    async def one(name: str) -> str:
        asked = request(name, "same text", limit=9)
        return check_answer(await collect(engine.submit(asked)), asked)

    async def run() -> None:
        texts = await asyncio.gather(*(asyncio.to_thread(asyncio.run, one(f"r{n}")) for n in range(6)))
        assert len(set(texts)) == 1
        await engine.close()

    asyncio.run(run())
