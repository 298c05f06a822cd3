"""The remote engine against servers that fail, lie and never end; what it promises beside is the contract's test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from inference.remote.engine import ATTEMPTS, RemoteEngine
from inference.types import Chunk, FinishReason, SamplingParams, input_token_bound
from tests.model_server import KEY, ModelServer, serving
from tests.unit.inference.doubles import check_answer, collect, request


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with serving() as found:
        yield found


def ask(server: ModelServer, model: str, *, limit: int = 16, idle_s: float = 20.0, **changes: Any) -> list[Chunk]:
    server.asked.clear()

    async def run() -> list[Chunk]:
        engine = RemoteEngine(server.url, model, salt_key=b"s" * 32, key=KEY, idle_s=idle_s)
        asked = request("r1", "xyzzy hello", limit=limit)
        for name, value in changes.items():
            object.__setattr__(asked, name, value)
        chunks = await collect(engine.submit(asked))
        check_answer(chunks, asked)
        assert engine.stats().running == 0
        return chunks

    return asyncio.run(run())


def test_what_is_asked_is_vllms(server: ModelServer) -> None:
    sampling = SamplingParams(0.7, top_k=5, seed=3, stop=("\n",), logit_bias=((7, -1.5),))
    ask(server, "m", sampling=sampling, tenant="acme")
    ask_again = dict(server.asked[0])
    ask(server, "m", sampling=sampling, tenant="beta")
    asked = dict(server.asked[0])
    salts = {asked.pop("cache_salt"), ask_again.pop("cache_salt")}
    assert len(salts) == 2
    assert all(len(bytes.fromhex(salt)) == 32 for salt in salts)
    assert server.keys[-1] == f"Bearer {KEY}"
    assert (
        asked
        == ask_again
        == {
            "model": "m",
            "messages": [{"role": "user", "content": "xyzzy hello"}],
            "max_tokens": 16,
            "temperature": 0.7,
            "top_k": 5,
            "seed": asked["seed"],
            "stop": ["\n"],
            "logit_bias": {"7": -1.5},
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
    )


@pytest.mark.parametrize(("model", "attempts"), [("500 twice", 3), ("429 slow", 2)])
def test_a_passing_fault_before_the_first_token_is_tried_again(server: ModelServer, model: str, attempts: int) -> None:
    chunks = ask(server, model)
    assert "".join(chunk.text for chunk in chunks) == "fine"
    assert chunks[-1].finish is FinishReason.STOP
    assert len(server.asked) == attempts


@pytest.mark.parametrize(
    ("model", "attempts", "says"),
    [
        ("500 always", ATTEMPTS, "answered 500"),
        ("401", 1, "answered 401"),
        ("redirect", 1, "answered 302"),
        ("no json", 1, "no chat completion chunk"),
        ("other json", 1, "no chat completion chunk"),
        ("error event", 1, "broke off with an error"),
        ("strange end", 1, "none of its protocol"),
        ("broken off", 1, "in the middle"),
        ("huge line", 1, "more bytes"),
        ("endless nothing", 1, "more events"),
        ("endless comments", 1, "more bytes"),
    ],
)
def test_a_hostile_server_costs_its_own_request_an_error(
    server: ModelServer, model: str, attempts: int, says: str
) -> None:
    chunks = ask(server, model)
    assert chunks[-1].finish is FinishReason.ERROR
    assert says in str(chunks[-1].error)
    assert "xyzzy" not in str(chunks[-1].error)
    assert len(server.asked) == attempts


def test_a_server_that_does_not_stop_is_stopped_at_the_bound(server: ModelServer) -> None:
    chunks = ask(server, "endless text", limit=9)
    assert "".join(chunk.text for chunk in chunks) == "word " * 9
    assert (chunks[-1].finish, chunks[-1].output_tokens) == (FinishReason.LENGTH, 9)


def test_without_usage_each_event_with_text_is_a_token(server: ModelServer) -> None:
    chunks = ask(server, "bare")
    assert (chunks[-1].finish, chunks[-1].output_tokens) == (FinishReason.STOP, 2)
    assert ask(server, "short")[-1].output_tokens == 16


def test_input_tokens_are_never_more_than_was_reserved(server: ModelServer) -> None:
    assert ask(server, "greedy")[-1].input_tokens == input_token_bound(request("r1", "xyzzy hello").turns)


def test_estimated_tokens_are_reported_as_the_server_counts_them(server: ModelServer) -> None:
    last = ask(server, "greedy", estimated=True)[-1]
    assert (last.finish, last.input_tokens, last.output_tokens) == (FinishReason.STOP, 99_999, 1)
    chunks = ask(server, "endless text", limit=9, estimated=True)
    assert "".join(chunk.text for chunk in chunks) == "word " * 9
    assert (chunks[-1].finish, chunks[-1].output_tokens) == (FinishReason.LENGTH, 10)


@pytest.mark.parametrize(("estimated", "counted"), [(True, 40), (False, 16)])
def test_output_counted_behind_the_end_is_bounded_where_it_is_not_estimated(
    server: ModelServer, estimated: bool, counted: int
) -> None:
    last = ask(server, "thinks", estimated=estimated)[-1]
    assert (last.finish, last.output_tokens) == (FinishReason.STOP, counted)


def test_a_server_that_cannot_be_reached_is_an_error(server: ModelServer) -> None:
    async def run() -> list[Chunk]:
        engine = RemoteEngine("http://127.0.0.1:1/v1", "m", salt_key=b"s" * 32)
        return await collect(engine.submit(request("r1")))

    (chunk,) = asyncio.run(run())
    assert chunk.finish is FinishReason.ERROR
    assert "cannot be reached" in str(chunk.error)


@pytest.mark.parametrize(("model", "finish"), [("silent", FinishReason.DEADLINE), ("falls silent", FinishReason.ERROR)])
def test_the_deadline_ends_a_wait(server: ModelServer, model: str, finish: FinishReason) -> None:
    assert ask(server, model, deadline_s=0.3)[-1].finish is finish
    assert server.broken.acquire(timeout=10)


def test_a_server_that_falls_silent_is_given_up(server: ModelServer) -> None:
    chunks = ask(server, "falls silent", idle_s=0.2)
    assert "said nothing for 0.2 s" in str(chunks[-1].error)
    assert server.broken.acquire(timeout=10)


def test_cancelling_closes_the_connection(server: ModelServer) -> None:
    async def run() -> list[Chunk]:
        engine = RemoteEngine(server.url, "falls silent", salt_key=b"s" * 32)
        chunks = []
        async for chunk in engine.submit(request("r1")):
            chunks.append(chunk)
            asyncio.get_running_loop().call_later(0.05, engine.cancel, "r1")
        return chunks

    chunks = asyncio.run(run())
    assert [chunk.finish for chunk in chunks] == [None, FinishReason.CANCELLED]
    assert server.broken.acquire(timeout=10)
