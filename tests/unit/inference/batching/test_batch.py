"""Batches on a model without weights: joining, leaving, faults and the thread around them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.batching.batch import Batch
from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.batching.sequence import Sequence
from inference.types import FinishReason, GenerationRequest, SamplingParams, Turn
from tests.unit.inference.batching.batches import Clock, make_batch, run_batch
from tests.unit.inference.doubles import HashForward, check_answer, collect, request

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
