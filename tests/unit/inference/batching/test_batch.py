"""Batches on a model without weights: joining, leaving, faults and the thread around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Sequence as Items

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batching.batch import Batch
from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.batching.quarantine import Quarantine
from inference.batching.sequence import Sequence
from inference.ports import LogitsRow, Move, StepInput
from inference.types import Chunk, EngineClosed, FinishReason, GenerationRequest, SamplingParams, Turn
from tests.unit.inference.doubles import HashForward, check_answer, collect, request, until


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


PATIENT = 1_000_000
"""Strikes of a quarantine that never comes."""


def make_batch(
    forward: HashForward, *, clock: Clock | None = None, strikes: int = PATIENT, reuse: bool = True
) -> Batch:
    quarantine = Quarantine(strikes=strikes)
    options = BatchOptions(max_waiting=1000, keep_prefixes=reuse)
    return Batch(forward, options, clock=clock or Clock(), quarantine=quarantine)


def finish(batch: Batch, answers: dict[str, list[Chunk]]) -> None:
    while batch.stats().running or batch.stats().waiting:
        for chunk in batch.step():
            answers.setdefault(chunk.request_id, []).append(chunk)


def run_batch(
    arrivals: list[tuple[int, GenerationRequest]], forward: HashForward, *, reuse: bool = True
) -> dict[str, list[Chunk]]:
    """Each request's chunks where requests join before the step given."""
    batch = make_batch(forward, reuse=reuse)
    answers: dict[str, list[Chunk]] = {asked.request_id: [] for _, asked in arrivals}
    pending, step = list(arrivals), 0
    while pending or batch.stats().running or batch.stats().waiting:
        for _, asked in [one for one in pending if one[0] <= step]:
            assert batch.join(Sequence(asked, forward.encode(asked.turns))) is None
        pending = [one for one in pending if one[0] > step]
        for chunk in batch.step():
            answers[chunk.request_id].append(chunk)
        step += 1
    assert forward.faults == []
    assert batch.stats().blocks_held == 0
    assert sum(block != [None] * 4 for block in forward.cache) == batch._pool.named
    assert forward.largest <= forward.budget
    return answers


TEXTS = st.sampled_from(["", "boom", "nan "]).flatmap(
    lambda start: st.text("xyz", min_size=1, max_size=40).map(lambda rest: start + rest)
)
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 12),
        TEXTS,
        st.sampled_from("abc"),
        st.integers(1, 12),
        st.sampled_from([0.0, 1.0]),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=80, deadline=None)
@given(REQUESTS, st.integers(1, 4), st.sampled_from([0, 3, 40]), st.booleans())
def test_an_answer_is_the_same_in_any_company(
    drawn: list[tuple[int, str, str, int, float]], slots: int, spare: int, reuse: bool
) -> None:
    arrivals = [
        (step, request(f"r{n}", text, tenant=tenant, limit=limit, sampling=SamplingParams(temperature, seed=n)))
        for n, (step, text, tenant, limit, temperature) in enumerate(drawn)
    ]
    crowded = HashForward(slots=slots, budget=slots + 6, max_context=64, spare=spare)
    together = run_batch(arrivals, crowded, reuse=reuse)
    for _, asked in arrivals:
        chunks = together[asked.request_id]
        check_answer(chunks, asked)
        assert chunks == run_batch([(0, asked)], HashForward(slots=1, budget=50))[asked.request_id]
        poisoned = asked.turns[0].text.startswith(("boom", "nan"))
        assert (chunks[-1].finish is FinishReason.ERROR) == poisoned


@pytest.mark.parametrize(("start", "named"), [("boom", "Poison"), ("nan", "not a number")])
def test_a_poisoned_request_fails_alone_and_says_why_without_its_text(start: str, named: str) -> None:
    async def run() -> None:
        forward = HashForward(slots=4)
        engine = BatchingEngine(forward, ("m",))
        asked = [request(f"r{n}", f"{start} secret" if n == 2 else f"text {n}", limit=8) for n in range(8)]
        answers = await asyncio.gather(*(collect(engine.submit(one)) for one in asked))
        for number, (one, chunks) in enumerate(zip(asked, answers, strict=True)):
            check_answer(chunks, one)
            assert (chunks[-1].finish is FinishReason.ERROR) == (number == 2)
        assert named in str(answers[2][-1].error)
        assert "secret" not in str(answers[2][-1].error)
        await engine.close()
        assert forward.faults == []

    asyncio.run(run())


def test_leaving_frees_the_blocks_and_empties_them() -> None:
    forward = HashForward(slots=1)
    batch = make_batch(forward, reuse=False)
    for name in ("first", "second"):
        batch.join(Sequence(request(name, "nothing special", limit=100), list(b"nothing special")))
    empty = [[None] * 4] * forward.blocks
    batch.step()
    assert forward.cache != empty
    last = batch.leave("second")
    assert last is not None
    assert (last.finish, last.tokens) == (FinishReason.CANCELLED, 0)
    assert forward.cache != empty, "the one that waited held no block"
    assert batch.leave("first") is not None
    assert forward.cache == empty
    assert batch.leave("first") is None
    assert batch.stats().running == batch.stats().waiting == 0
    assert batch.step() == []


def test_a_full_queue_ends_the_newcomer() -> None:
    forward = HashForward(slots=1)
    batch = Batch(forward, BatchOptions(max_waiting=1), clock=Clock())
    names = ["a", "b", "c"]
    ends = [batch.join(Sequence(request(name), [1])) for name in names]
    assert ends[:2] == [None, None]
    assert ends[2] is not None
    assert ends[2].finish is FinishReason.ERROR
    assert "full" in str(ends[2].error)


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


def test_the_prompt_and_the_answer_must_fit_together() -> None:
    async def run() -> None:
        engine = BatchingEngine(HashForward(max_context=10), ("m",))
        fits = request("fits", "12345", limit=5)
        check_answer(await collect(engine.submit(fits)), fits)
        over = GenerationRequest("over", "t", (Turn("user", "123456"),), 5)
        chunks = await collect(engine.submit(over))
        assert "at most 10 tokens" in str(chunks[-1].error)
        await engine.close()

    asyncio.run(run())


def test_log_probabilities_come_one_for_each_token_and_only_where_asked() -> None:
    async def run() -> None:
        engine = BatchingEngine(HashForward(), ("m",))
        asked = request("r", limit=7, sampling=SamplingParams(1.0, stop=("never",), logprobs=3))
        chunks = await collect(engine.submit(asked))
        text = check_answer(chunks, asked)
        assert [len(chunk.logprobs) for chunk in chunks] == [chunk.tokens for chunk in chunks]
        told = [one for chunk in chunks for one in chunk.logprobs]
        assert bytes(one.token for one in told).decode() == text
        assert all(len(one.top) == 3 for one in told)
        plain = await collect(engine.submit(request("p", limit=2)))
        assert not any(chunk.logprobs for chunk in plain)
        await engine.close()

    asyncio.run(run())


def test_the_time_in_the_queue_is_counted_once_for_each_that_left_it() -> None:
    clock, forward = Clock(), HashForward(slots=1)
    batch = make_batch(forward, clock=clock)
    for name in ("first", "second", "gone"):
        asked = request(name, "hello", limit=3)
        assert batch.join(Sequence(asked, forward.encode(asked.turns))) is None
    batch.leave("gone")
    while batch.stats().running or batch.stats().waiting:
        clock.now += 1.0
        batch.step()
    stats = batch.stats()
    assert stats.begun == 2
    # the first waited for the step that began it, the second for all of the first's as well
    assert stats.waited_s > 2.0
