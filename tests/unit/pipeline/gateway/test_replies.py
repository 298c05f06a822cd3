"""One text out of several attempts, repeats, losses and late arrivals."""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Malformed
from pipeline.events.messages import Response
from pipeline.events.reasons import REASONS
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.replies import Reply
from pipeline.gateway.waiting import ResponseRouter
from pipeline.metrics import GATEWAY

NAME = ("acme", "acme-1:r")


UNOPENABLE = "this text does not open"
"""Longer than any text that is drawn."""


def opened(response: Response, field: str, sealed: bytes) -> bytes:
    assert field in (f"{response.attempt}:{response.position}", f"{response.attempt}:logprobs")
    if sealed == UNOPENABLE.encode():
        raise Malformed("does not open")
    return sealed


def chunk(attempt: str, position: int, text: str, prefix: str, request: str = "q") -> Response:
    digest = hashlib.sha256(prefix.encode()).digest()
    return Response(request, NAME[1], NAME[0], "chunk", attempt, position, sealed=text.encode(), prefix=digest)


def chunks(attempt: str, words: list[str]) -> list[Response]:
    return [chunk(attempt, n, word, "".join(words[: n + 1])) for n, word in enumerate(words)]


def end(attempt: str, text: str | None, result: str = "finished") -> Response:
    prefix = b"" if text is None else hashlib.sha256(text.encode()).digest()
    return Response("q", NAME[1], NAME[0], "end", attempt, result=result, prefix=prefix, finish="stop")


def replay(*responses: Response) -> tuple[str, Reply]:
    reply = Reply(opened)
    delivered = b"".join(reply.add(r) for r in responses)
    assert delivered == bytes(reply.text)
    return delivered.decode(), reply


def test_one_attempt_in_order() -> None:
    text, reply = replay(*chunks("a", ["x", "y", "z"]), end("a", "xyz"))
    assert text == "xyz"
    assert reply.fault(streamed=True) is None


@pytest.mark.parametrize(("sealed", "told"), [(b"", b""), (b"read", b"read"), (UNOPENABLE.encode(), b"")])
def test_log_probabilities_come_with_the_end_or_not_at_all(sealed: bytes, told: bytes) -> None:
    _, reply = replay(*chunks("a", ["x"]), msgspec.structs.replace(end("a", "x"), logprobs=sealed))
    assert reply.logprobs() == told
    assert reply.fault() is None


words = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3), min_size=1, max_size=6)


@settings(deadline=None)
@given(words, st.data())
def test_interleaved_equal_attempts_give_the_text_once(found: list[str], data: st.DataObject) -> None:
    attempts = {name: chunks(name, found) for name in "abc"}
    order = data.draw(st.permutations([name for name, responses in attempts.items() for _ in responses]))
    taken = [attempts[name].pop(0) for name in order]
    repeated = [r for r in taken for _ in range(data.draw(st.integers(1, 2)))]
    text, reply = replay(*repeated, end("b", "".join(found)))
    assert text == "".join(found)
    assert reply.fault(streamed=True) is None


def test_another_attempt_that_says_something_else_is_not_mixed_in() -> None:
    text, reply = replay(*chunks("a", ["one "]), *chunks("b", ["two ", "three "]), *chunks("a", ["one ", "more "])[1:])
    assert text == "one more "
    assert reply.moved == 0


def test_the_end_of_a_diverged_attempt_is_whole_for_collected_answers_only() -> None:
    text, reply = replay(*chunks("a", ["one "]), *chunks("b", ["two ", "three "]), end("b", "two three "))
    assert text == "one "
    assert reply.whole == b"two three "
    assert reply.fault() is None
    broken = reply.fault(streamed=True)
    assert broken is not None
    assert broken.status == 502


@pytest.mark.parametrize(
    "lost",
    [
        [chunks("a", ["x", "y", "z"])[0], chunks("a", ["x", "y", "z"])[2], end("a", "xyz")],
        [*chunks("a", ["x", "y"]), end("a", "xyz")],
        [*chunks("a", ["x", "y"])[1:], end("a", None)],
        [end("a", "xyz")],
        [*chunks("a", ["x"]), chunk("a", 1, UNOPENABLE, f"x{UNOPENABLE}"), end("a", None)],
        [*chunks("a", ["x"]), chunk("a", 1, "y", "other"), end("a", "xy")],
    ],
    ids=["middle", "last", "first", "all", "does not open", "wrong digest"],
)
def test_a_loss_is_told_and_never_passed_off_as_whole(lost: list[Response]) -> None:
    _, reply = replay(*lost)
    broken = reply.fault()
    assert broken is not None
    assert (broken.status, broken.code) == (502, "incomplete")


def test_attempts_are_bounded() -> None:
    _, reply = replay(*(r for n in range(100) for r in chunks(f"a{n}", ["x"])))
    assert len(reply._attempts) == 8


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_has_its_status(reason: str) -> None:
    refused = Response("q", NAME[1], NAME[0], "refusal", reason=reason, limit="t:acme|rpm", retry_after_ms=1001)
    fault = replay(refused)[1].fault()
    assert fault is not None
    assert (fault.status, fault.kind, fault.code) == (REASONS[reason].status, REASONS[reason].type, reason)
    assert fault.headers["Retry-After"] == "2"
    assert "t:acme|rpm" in fault.message


def test_responses_before_the_id_is_known_are_kept_and_strangers_left_out() -> None:
    async def job() -> None:
        router = ResponseRouter(Metrics(), 10, 10_000)
        waiter = router.register(NAME, opened)
        router.deliver(Response("stranger", NAME[1], NAME[0], "refusal", reason="replayed"))
        for response in (*chunks("a", ["x"]), end("a", "x")):
            router.deliver(response)
        assert waiter.reply.end is None
        waiter.set_request("q")
        reply = await waiter.wait_end(1)
        assert reply.whole == b"x"
        router.unregister(NAME)
        assert router.open_requests == 0

    asyncio.run(job())


def test_held_answers_are_given_later_and_bounded() -> None:
    async def job() -> None:
        router = ResponseRouter(Metrics(), 3, 10_000)
        asking = asyncio.create_task(router.cache.wait_reply(NAME, opened, 5))
        await asyncio.sleep(0)
        router.deliver(Response("copy", NAME[1], NAME[0], "refusal", reason="replayed"))
        for response in (*chunks("a", ["x", "y"]), end("a", "xy")):
            router.deliver(response)
        reply = await asking
        assert reply is not None
        assert reply.whole == b"xy"
        for n in range(3):
            router.deliver(Response("q", f"acme-1:{n}", "acme", "end", result="failed"))
        assert await router.cache.wait_reply(NAME, opened, 0) is None
        assert await router.cache.wait_reply(("acme", "acme-1:2"), opened, 0) is not None
        assert await router.cache.wait_reply(("beta", "acme-1:2"), opened, 0) is None

    asyncio.run(job())


@pytest.mark.parametrize("reason", ["rate_limited", "budget_exhausted", "too_many_open"])
def test_what_a_limit_never_gives_is_not_told_to_come_back(reason: str) -> None:
    fault = replay(Response("q", NAME[1], NAME[0], "refusal", reason=reason, limit="t:acme|tpm"))[1].fault()
    assert fault is not None
    assert fault.status == 429
    assert fault.headers == {"x-should-retry": "false"}
    assert "Lower max_tokens" in fault.message
    assert "t:acme|tpm" in fault.message


def test_a_repeat_names_the_first_request_in_header_and_body() -> None:
    refused = Response("g1-0-9", NAME[1], NAME[0], "refusal", reason="duplicate", first="g1-0-7")
    fault = replay(refused)[1].fault()
    assert fault is not None
    assert (fault.status, fault.headers["x-sluice-first-request"]) == (409, "g1-0-7")
    error = msgspec.json.decode(fault.body())["error"]
    assert error["first_request"] == "g1-0-7"
    assert "GET /v1/requests/g1-0-7" in error["message"]
    unlike = replay(Response("q", NAME[1], NAME[0], "refusal", reason="busy"))[1].fault()
    assert unlike is not None
    assert "first_request" not in msgspec.json.decode(unlike.body())["error"]


def test_what_is_held_is_found_by_the_requests_own_id_too_but_for_other_principals() -> None:
    async def job() -> None:
        router = ResponseRouter(Metrics(), 2, 10_000)
        by_id = ("acme", "q")
        asking = asyncio.create_task(router.cache.wait_reply(by_id, opened, 5, "acme-1"))
        await asyncio.sleep(0)
        for response in (*chunks("a", ["x", "y"]), end("a", "xy")):
            router.deliver(response)
        reply = await asking
        assert reply is not None
        assert reply.whole == b"xy"
        assert router.cache.client_request(by_id) == NAME[1]
        assert await router.cache.wait_reply(by_id, opened, 0, "acme-2") is None
        assert await router.cache.wait_reply(("beta", "q"), opened, 0, "acme-1") is None
        for n in range(2):
            router.deliver(Response(f"r{n}", f"acme-1:{n}", "acme", "end", result="failed"))
        assert await router.cache.wait_reply(by_id, opened, 0, "acme-1") is None
        assert router.cache.client_request(by_id) == "q"

    asyncio.run(job())


def test_the_metrics_are_a_closed_table() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.count("sluice_gateway_surprises_total")
    with pytest.raises(ValueError):
        metrics.count("sluice_gateway_refusals_total", "busy", "more")
    text = metrics.render().decode()
    assert all(m.name.removesuffix("_total") in text for m in GATEWAY)
