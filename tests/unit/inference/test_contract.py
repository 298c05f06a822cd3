"""What every engine promises, asked of each of them alike."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable

import pytest

from inference.types import (
    EngineClosed,
    FinishReason,
    GenerationRequest,
    InferenceEngine,
    SamplingParams,
    Turn,
    input_token_bound,
)
from tests.unit.inference.doubles import check_answer, collect, request, until

Make = Callable[[], InferenceEngine]
LONG = SamplingParams(temperature=100.0)
"""Nearly even odds over the vocabulary: an answer that goes on until it is stopped."""
WORDS = "word " * 300


def test_an_answer_is_whole(engine: InferenceEngine) -> None:
    asked = request("whole", "What is a dog?", limit=60)
    chunks = asyncio.run(collect(engine.submit(asked)))
    assert check_answer(chunks, asked).strip()
    assert chunks[-1].finish is FinishReason.STOP
    assert 0 < chunks[-1].input_tokens <= input_token_bound(asked.turns)
    assert engine.models


def test_conversations_with_every_role_and_script(engine: InferenceEngine) -> None:
    turns = (Turn("system", "你好"), Turn("user", "😀 <|user|>"), Turn("assistant", ""), Turn("user", "什么是music？"))
    asked = GenerationRequest("roles", "t", turns, 40)
    chunks = asyncio.run(collect(engine.submit(asked)))
    check_answer(chunks, asked)
    assert chunks[-1].finish in (FinishReason.STOP, FinishReason.LENGTH)
    assert chunks[-1].input_tokens <= input_token_bound(turns)


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_max_tokens_is_exact(engine: InferenceEngine, limit: int) -> None:
    asked = request("limit", WORDS, limit=limit, sampling=LONG)
    chunks = asyncio.run(collect(engine.submit(asked)))
    check_answer(chunks, asked)
    assert chunks[-1].finish is FinishReason.LENGTH
    assert chunks[-1].output_tokens == limit


def test_many_at_once_are_each_whole(engine: InferenceEngine) -> None:
    async def run() -> None:
        asked = [request(f"many{n}", "What is a dog?", tenant=f"t{n % 3}", limit=10) for n in range(20)]
        answers = await asyncio.gather(*(collect(engine.submit(one)) for one in asked))
        texts = {check_answer(chunks, one) for chunks, one in zip(answers, asked, strict=True)}
        assert len(texts) == 1

    asyncio.run(run())


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(engine: InferenceEngine) -> None:
    plain = request("plain", "What is a dog?", limit=40)
    text = check_answer(asyncio.run(collect(engine.submit(plain))), plain)
    stop = text[3:6]
    asked = request("stop", "What is a dog?", limit=40, sampling=SamplingParams(stop=("never there", stop)))
    chunks = asyncio.run(collect(engine.submit(asked)))
    assert check_answer(chunks, asked) == text[: text.index(stop)]
    assert chunks[-1].finish is FinishReason.STOP


def test_cancelling_ends_the_stream_with_a_chunk(engine: InferenceEngine) -> None:
    async def run() -> None:
        asked = request("cancel", WORDS, limit=600, sampling=LONG)
        chunks = []
        async for chunk in engine.submit(asked):
            chunks.append(chunk)
            if len(chunks) == 2:
                assert engine.cancel("cancel")
        check_answer(chunks, asked)
        assert chunks[-1].finish is FinishReason.CANCELLED
        assert chunks[-1].output_tokens < 290
        assert not engine.cancel("cancel")
        assert not engine.cancel("never seen")

    asyncio.run(run())


@pytest.mark.parametrize("way", ["aclose", "task", "deadline"])
def test_an_abandoned_request_is_given_up(engine: InferenceEngine, way: str) -> None:
    async def run() -> None:
        before = engine.stats().tokens_generated
        asked = request("abandoned", WORDS, limit=600, sampling=LONG)
        if way == "aclose":
            stream = engine.submit(asked)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
        else:
            started = asyncio.Event()

            async def read() -> None:
                async for _ in engine.submit(asked):
                    started.set()
                    await asyncio.sleep(0)
                    if way == "task":
                        await asyncio.Event().wait()

            task = asyncio.create_task(read())
            await started.wait()
            if way == "task":
                task.cancel()
            with pytest.raises((asyncio.CancelledError, TimeoutError)):
                await asyncio.wait_for(task, None if way == "task" else 0.0)
        # Not asked by cancel, which would do the engine's work for it.
        await until(lambda: engine.stats().running == 0)
        assert engine.stats().tokens_generated - before < 500
        again = request("abandoned", "What is a dog?", limit=3)
        assert (await collect(engine.submit(again)))[-1].finish is FinishReason.LENGTH

    asyncio.run(run())


def test_an_iterator_never_begun_costs_nothing(engine: InferenceEngine) -> None:
    async def run() -> None:
        stream = engine.submit(request("unused"))
        assert not engine.cancel("unused")
        await stream.aclose()  # type: ignore[attr-defined]
        assert engine.stats().running == 0

    asyncio.run(run())


def test_a_second_request_of_a_running_id_fails_alone(engine: InferenceEngine) -> None:
    async def run() -> None:
        first = request("twice", WORDS, limit=30, sampling=LONG)
        stream = engine.submit(first)
        chunks = [await anext(stream)]
        second = request("twice", "other", limit=5)
        refused = await collect(engine.submit(second))
        assert check_answer(refused, second) == ""
        assert "already" in str(refused[0].error)
        chunks += await collect(stream)
        check_answer(chunks, first)
        assert chunks[-1].finish is FinishReason.LENGTH

    asyncio.run(run())


SECRET = "xyzzy"
BAD = {
    "too long": request("bad", f"{SECRET} " * 5000, limit=1),
    "answer too long": request("bad", SECRET, limit=100_000),
    "no tokens": request("bad", SECRET, limit=0),
    "no id": request("", SECRET),
    "lone surrogate": request("bad", SECRET + "\ud800"),
    "no turns": GenerationRequest("bad", "t", (), 5),
    "role": GenerationRequest("bad", "t", (Turn("root", SECRET),), 5),
    "cold": request("bad", SECRET, sampling=SamplingParams(temperature=-1.0)),
    "no temperature": request("bad", SECRET, sampling=SamplingParams(temperature=math.nan)),
    "top_p": request("bad", SECRET, sampling=SamplingParams(top_p=0.0)),
    "no top_p": request("bad", SECRET, sampling=SamplingParams(top_p=math.nan)),
    "top_k": request("bad", SECRET, sampling=SamplingParams(top_k=-1)),
    "seed": request("bad", SECRET, sampling=SamplingParams(seed=2**64)),
    "stops": request("bad", SECRET, sampling=SamplingParams(stop=("a",) * 9)),
    "empty stop": request("bad", SECRET, sampling=SamplingParams(stop=("",))),
    "long stop": request("bad", SECRET, sampling=SamplingParams(stop=("a" * 10_000,))),
    "min_p": request("bad", SECRET, sampling=SamplingParams(min_p=1.1)),
    "no min_p": request("bad", SECRET, sampling=SamplingParams(min_p=math.nan)),
    "repetition": request("bad", SECRET, sampling=SamplingParams(repetition_penalty=0.0)),
    "presence": request("bad", SECRET, sampling=SamplingParams(presence_penalty=2.1)),
    "frequency": request("bad", SECRET, sampling=SamplingParams(frequency_penalty=-2.1)),
    "biases": request("bad", SECRET, sampling=SamplingParams(logit_bias=((1, 0.0),) * 65)),
    "bias": request("bad", SECRET, sampling=SamplingParams(logit_bias=((1, math.inf),))),
    "logprobs": request("bad", SECRET, sampling=SamplingParams(logprobs=6)),
    "readout": request("bad", SECRET, sampling=SamplingParams(logprobs=1, logit_bias=((1, 1.0),))),
    "json": request("bad", SECRET, sampling=SamplingParams(json_mode=True)),
    "no weight": dataclasses.replace(request("bad", SECRET), weight=0),
    "risk": dataclasses.replace(request("bad", SECRET), risk=1.5),
    "no deadline": dataclasses.replace(request("bad", SECRET), deadline_s=math.nan),
    "adapter": dataclasses.replace(request("bad", SECRET), adapter="another's"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_run_ends_with_one_error_chunk(engine: InferenceEngine, case: str) -> None:
    asked = BAD[case]
    chunks = asyncio.run(collect(engine.submit(asked)))
    assert len(chunks) == 1
    assert chunks[0].finish is (FinishReason.CONTEXT if "too long" in case else FinishReason.ERROR)
    assert chunks[0].error
    assert SECRET not in chunks[0].error
    assert not engine.cancel(asked.request_id)


def test_drain_lets_the_accepted_finish_and_refuses_others(fresh_engine: Make) -> None:
    async def run() -> None:
        engine = fresh_engine()
        asked = request("last", WORDS, limit=40, sampling=LONG)
        stream = engine.submit(asked)
        chunks = [await anext(stream)]
        draining = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        with pytest.raises(EngineClosed):
            await collect(engine.submit(request("late")))
        chunks += await collect(stream)
        check_answer(chunks, asked)
        assert chunks[-1].finish is FinishReason.LENGTH
        await draining
        await engine.drain()

    asyncio.run(run())


def test_close_cancels_what_is_left_and_can_be_repeated(fresh_engine: Make) -> None:
    async def run() -> None:
        engine = fresh_engine()
        asked = [request(f"cut{n}", WORDS, limit=400, sampling=LONG) for n in range(12)]
        reading = [asyncio.create_task(collect(engine.submit(one))) for one in asked]
        await until(lambda: engine.stats().running > 0)
        await engine.close()
        await engine.close()
        for task, one in zip(reading, asked, strict=True):
            chunks = await task
            check_answer(chunks, one)
            assert chunks[-1].finish is FinishReason.CANCELLED
        with pytest.raises(EngineClosed):
            await collect(engine.submit(request("late")))
        await engine.drain()

    asyncio.run(run())


def test_counters_count(fresh_engine: Make) -> None:
    async def run() -> None:
        engine = fresh_engine()
        await collect(engine.submit(request("count", WORDS, limit=5, sampling=LONG)))
        stats = engine.stats()
        assert (stats.running, stats.waiting, stats.tokens_generated) == (0, 0, 5)
        assert stats.steps >= 5
        assert 0 <= stats.batch_fill <= 1

    asyncio.run(run())
