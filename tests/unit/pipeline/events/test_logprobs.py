"""What of a model's probabilities gets out: as the plan says, and never around a guard."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from inference.types import Chunk, FinishReason, TokenLogprob
from pipeline.admit import policy
from pipeline.errors import Malformed
from pipeline.events import logprobs as payloads
from pipeline.events.control import Plan
from pipeline.events.messages import Work
from pipeline.events.records import Facts, Sampling
from pipeline.events.wire import MAX_LOGPROB_TOKENS, InferenceBody
from pipeline.generate import answer as generate
from pipeline.generate.guard import guard_of

PIECES = (b"Hi", b" caf\xc3", b"\xa9")


def work(top: int = 1, **fields: Any) -> Work:
    asked = Sampling(logprobs=True, top_logprobs=top)
    return Work("q", 0, "acme", "acme", "eve", "r1", 0, 2**40, model="m", max_tokens=9, sampling=asked, **fields)


def told(piece: bytes) -> TokenLogprob:
    return TokenLogprob(1, -0.5, ((1, -0.5), (2, -1.0)), (piece, piece, b"other"))


def answered(asked: Work, said: str) -> generate.AnswerStream:
    answer = generate.AnswerStream(asked, "a1", "w", lambda field, raw: field.encode() + b"|" + raw, guard_of(asked))
    answer.push(Chunk("q", said, 0, 3, None, 5, 3, logprobs=tuple(map(told, PIECES))), 1)
    answer.push(Chunk("q", "", 3, 0, FinishReason.STOP, 5, 3), 1)
    return answer


@pytest.mark.parametrize(
    ("plan", "asked", "reason"),
    [
        ({}, {}, ""),
        ({}, {"top_logprobs": 0}, "logprobs_not_allowed"),
        ({"top_logprobs": 0}, {"top_logprobs": 0}, ""),
        ({"top_logprobs": 0}, {"top_logprobs": 1}, "logprobs_not_allowed"),
        ({"top_logprobs": 5}, {"top_logprobs": 5}, ""),
        ({"top_logprobs": 5}, {"top_logprobs": 0, "max_tokens": MAX_LOGPROB_TOKENS + 1}, "logprobs_not_allowed"),
        ({}, {"biases": 1}, "logit_bias_not_allowed"),
        ({"logit_bias": True}, {"biases": 1}, ""),
        ({"logit_bias": True, "top_logprobs": 5}, {"biases": 1, "top_logprobs": 0}, "logprobs_not_allowed"),
    ],
)
def test_the_plan_says_what_may_be_read_out(plan: dict[str, Any], asked: dict[str, Any], reason: str) -> None:
    assert policy.logprobs_refusal(Plan(id="p", **plan), Facts(0, 0, **asked)) == reason


@pytest.mark.parametrize(("logprobs", "top", "engine"), [(False, 0, 0), (True, 0, 1), (True, 3, 3)])
@pytest.mark.parametrize("degrade", [False, True])
def test_the_engine_is_asked_for_what_is_told_and_for_nothing_of_a_degraded_answer(
    logprobs: bool, top: int, engine: int, degrade: bool
) -> None:
    body = InferenceBody("m", 9, b"", logprobs=logprobs, top_logprobs=top, logit_bias=((7, 1.0),))
    asked = msgspec.structs.replace(work(degrade=degrade), sampling=body.sampling)
    sampling = generate.generation(asked, ()).sampling
    assert sampling.logprobs == (0 if degrade else engine)
    assert sampling.logit_bias == (() if degrade else ((7, 1.0),))


@pytest.mark.parametrize("top", [0, 1, 2])
def test_each_token_is_told_by_its_bytes_in_the_openai_shape(top: int) -> None:
    name, _, packed = answered(work(top), "Hi café").logprobs_payload().partition(b"|")
    assert name == b"a1:logprobs"
    found = payloads.content(packed)
    assert b"".join(bytes(one["bytes"]) for one in found) == "Hi café".encode()
    assert [one["logprob"] for one in found] == [-0.5] * 3
    assert [other["token"] for other in found[0]["top_logprobs"]] == ["Hi", "other"][:top]


@pytest.mark.parametrize("output", ["redact", "review", "withhold"])
def test_where_a_guard_found_something_nothing_is_told(output: Any) -> None:
    assert answered(work(output=output), "Mail bo@example.org, please.").logprobs_payload() == b""
    assert answered(work(output=output), "Nothing to find.").logprobs_payload()


def test_an_engine_that_tells_nothing_and_bytes_that_are_no_payload() -> None:
    assert payloads.pack([TokenLogprob(1, -0.5, ())], 5) == b""
    assert len(payloads.content(payloads.pack([told(b"x")] * (MAX_LOGPROB_TOKENS + 9), 5))) == MAX_LOGPROB_TOKENS
    with pytest.raises(Malformed):
        payloads.content(b"\xff")
