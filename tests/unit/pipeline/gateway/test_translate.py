"""HTTP bodies to what is asked: what is understood, and that each misfit names its field in OpenAI's shape."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.events.records import Sampling
from pipeline.events.wire import decode_messages
from pipeline.gateway.bodies import ChatBody
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.translate import read_chat, read_simple
from tests.unit.pipeline.gateway.chat_requests import CANARY, CONTROL, PLAN, TURN, chat, refusal


def test_everything_that_is_understood() -> None:
    raw = chat(
        messages=[
            {"role": "developer", "content": "rules"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None},
            {"role": "tool", "content": "d", "tool_call_id": "t1"},
        ],
        max_completion_tokens=7,
        temperature=1,
        top_p=0.5,
        top_k=4,
        seed=9,
        min_p=0.1,
        repetition_penalty=1.5,
        presence_penalty=-1,
        frequency_penalty=2,
        logprobs=True,
        top_logprobs=3,
        logit_bias={"17": -100, "4": 0.5},
        stop=["x", "y"],
        n=1,
        user="u",
        stream=True,
        stream_options={"include_usage": True},
        timeout_ms=500,
    )
    ask = read_chat(raw, CONTROL, PLAN, "once")
    turns = [(m.role, m.content) for m in decode_messages(ask.messages)]
    assert turns == [("system", "rules"), ("user", "ab"), ("assistant", "c"), ("document", "d")]
    body = ask.body
    assert (body.model, body.max_tokens, body.temperature, body.top_p, body.top_k) == ("glossary", 7, 1.0, 0.5, 4)
    assert (body.seed, body.stop, body.timeout_ms, body.idempotency) == (9, ("x", "y"), 500, "once")
    assert body.sampling == Sampling(1.0, 0.5, 4, 9, ("x", "y"), 0.1, 1.5, -1.0, 2.0, True, 3, ((17, -100.0), (4, 0.5)))
    assert ask.stream
    assert ask.include_usage


@pytest.mark.parametrize(("text", "expected"), [("hello", 64), ("h" * 60, 37), ("h" * 500, 1)])
def test_tokens_not_asked_for_are_what_surely_fits(text: str, expected: int) -> None:
    raw = chat(messages=[{"role": "user", "content": text}])
    assert read_chat(raw, CONTROL, PLAN).body.max_tokens == expected


def test_the_end_user_is_whom_the_safety_identifier_names_or_else_the_user() -> None:
    asked = [{}, {"user": "u"}, {"safety_identifier": "s"}, {"user": "u", "safety_identifier": "s"}]
    assert [read_chat(chat(**fields), CONTROL, PLAN).body.end_user for fields in asked] == ["", "u", "s", "s"]


def test_a_model_that_control_lacks_is_left_to_admit() -> None:
    assert read_chat(chat(model="other"), CONTROL, PLAN).body.max_tokens == PLAN.max_tokens


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"colour": 1}, "colour", "unknown_parameter"),
    ({"messages": [{**TURN, "weight": 1}]}, "messages[...].weight", "unknown_parameter"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"user": "u" * 129}, "user", "invalid_type"),
    ({"safety_identifier": "u" * 129}, "safety_identifier", "invalid_type"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages", "invalid_value"),
    ({"messages": [TURN] * 257}, "messages", "invalid_value"),
    ({"messages": "hello"}, "messages", "invalid_type"),
    ({"messages": [{"role": CANARY, "content": "x"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{**TURN, "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls", "invalid_type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "text": ""}]}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": CANARY}}]}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": CANARY}}]}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
        "missing_required_parameter",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "file": {"id": CANARY}}]}]},
        "messages[0].content[0].file",
        "unknown_parameter",
    ),
    ({"model": None}, "model", "missing_required_parameter"),
    ({"model": 5}, "model", "invalid_type"),
    ({"model": f"{CANARY} with spaces"}, "model", "invalid_type"),
    ({"model": "m" * 129}, "model", "invalid_type"),
    ({"max_tokens": 0}, "max_tokens", "invalid_type"),
    ({"max_tokens": -1}, "max_tokens", "invalid_type"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    ({"max_tokens": 10**7}, "max_tokens", "invalid_type"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_value"),
    ({"temperature": 2.1}, "temperature", "invalid_type"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"top_p": 0}, "top_p", "invalid_type"),
    ({"min_p": 1.1}, "min_p", "invalid_type"),
    ({"repetition_penalty": 0}, "repetition_penalty", "invalid_type"),
    ({"presence_penalty": 2.1}, "presence_penalty", "invalid_type"),
    ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_type"),
    ({"seed": -1}, "seed", "invalid_type"),
    ({"seed": 2**63}, "seed", "invalid_type"),
    ({"stop": ["a"] * 5}, "stop", "invalid_type"),
    ({"stop": [""]}, "stop[0]", "invalid_type"),
    ({"stop": ["s" * 65]}, "stop[0]", "invalid_type"),
    ({"logprobs": 1}, "logprobs", "invalid_type"),
    ({"logprobs": True, "top_logprobs": 6}, "top_logprobs", "invalid_type"),
    ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
    ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {CANARY: 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"1": 101}}, "logit_bias[0][1]", "invalid_type"),
    ({"logit_bias": {str(n): 1 for n in range(65)}}, "logit_bias", "invalid_type"),
    ({"n": 2}, "n", "invalid_value"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
    ({"timeout_ms": 1}, "timeout_ms", "invalid_type"),
]


@pytest.mark.parametrize(("fields", "param", "code"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_does_not_fit_names_its_field(fields: dict[str, Any], param: str, code: str) -> None:
    found = refusal(chat(**fields))
    assert (found.status, found.kind) == (400, "invalid_request_error")
    assert found.param is not None
    assert found.param.replace("[0]", "[...]") == param.replace("[0]", "[...]")
    assert found.code == code
    assert found.message.startswith(found.param)
    assert CANARY not in found.message


@pytest.mark.parametrize("name", ["x" * 100_000, "a\r\nSet-Cookie: b", "`", "\x1b[31m", "\u202e"])
def test_an_unknown_name_is_told_in_bounds_and_without_what_steers_a_terminal(name: str) -> None:
    found = refusal(chat(**{name: 1}))
    assert found.code == "unknown_parameter"
    assert len(found.message) < 120
    assert found.message.isprintable()
    assert "\u202e" not in found.message


def test_nothing_and_empty_messages_are_called_so() -> None:
    assert refusal(b"").message.startswith("The body is empty: ")
    blank = refusal(chat(messages=[{"role": "user", "content": ""}]))
    assert blank.message == "messages: expected 1 to 256 with content, got 1, all of them empty."


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "cut": b'{"model": "glossary"',
    "trailing": chat() + b"x",
    "list": b"[]",
    "number": b"5",
    "latin1": b'{"model":"glossary","messages":[{"role":"user","content":"\xe9"}]}',
    "lone surrogate": b'{"model":"glossary","messages":[{"role":"user","content":"\\ud800"}]}',
    "nan": b'{"model":"glossary","temperature":NaN,"messages":[{"role":"user","content":"a"}]}',
    "infinity": b'{"model":"glossary","temperature":-Infinity,"messages":[{"role":"user","content":"a"}]}',
    "too big a float": b'{"model":"glossary","temperature":1e999,"messages":[{"role":"user","content":"a"}]}',
    "too big a number": b'{"model":"glossary","seed":1' + b"0" * 400 + b',"messages":[{"role":"user","content":"a"}]}',
    "deep messages": b'{"model":"glossary","messages":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep unknown": b'{"x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001,
    "deep in a null": b'{"model":"glossary","messages":[{"role":"user","tool_calls":' + b"[" * 200_000,
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("read", [read_chat, read_simple])
def test_bytes_that_are_no_request(name: str, read: Any) -> None:
    found = refusal(BROKEN[name], read)
    assert found.status == 400
    assert len(found.message) < 300


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_never_crash(raw: bytes) -> None:
    refusal(raw)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([*ChatBody.__struct_fields__]), SCALARS | st.lists(SCALARS, max_size=5))
def test_arbitrary_values_are_read_or_refused(field: str, value: object) -> None:
    with contextlib.suppress(Refusal):
        read_chat(chat(**{field: value}), CONTROL, PLAN)


def test_a_repeated_key_counts_once() -> None:
    raw = b'{"model":"x","model":"glossary","messages":[{"role":"user","content":"a"}]}'
    assert read_chat(raw, CONTROL, PLAN).body.model == "glossary"


def test_the_simple_shape() -> None:
    ask = read_simple(b'{"prompt":"hello"}', CONTROL, PLAN)
    assert [m.content for m in decode_messages(ask.messages)] == ["hello"]
    assert ask.body.model == "glossary"
    assert refusal(b"{}", read_simple).param == "prompt"
    both = json.dumps({"prompt": "a", "messages": [TURN]}).encode()
    assert refusal(both, read_simple).param == "prompt"
    assert refusal(b'{"prompt":"a","n":1}', read_simple).param == "n"
