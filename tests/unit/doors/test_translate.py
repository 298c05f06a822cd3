"""HTTP bodies to what is asked: what is understood, and that each misfit names its field in OpenAI's shape."""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from pipeline.adapters.gateway.bodies import UNSERVED, ChatBody
from pipeline.adapters.gateway.refusals import Refusal
from pipeline.adapters.gateway.translate import read_chat, read_simple
from pipeline.events.control import Control, Model, Plan
from pipeline.events.records import Sampling
from pipeline.events.wire import decode_messages

PLAN = Plan(id="p", models=("glossary",), max_tokens=64)
CONTROL = Control()
CONTROL.apply(0, Model(id="glossary", context=100))
TURN = {"role": "user", "content": "hello"}
CANARY = "canary-7f3a"


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "glossary", "messages": [TURN], **fields}).encode()


def refusal(raw: bytes, read: Any = read_chat) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(raw, CONTROL, PLAN)
    shape = msgspec.json.decode(caught.value.body())
    assert set(shape["error"]) == {"message", "type", "param", "code"}
    return caught.value


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
    assert body.sampling == Sampling(
        1.0, 0.5, 4, 9, ("x", "y"), 0.1, 1.5, -1.0, 2.0, True, 3, ((17, -100.0), (4, 0.5))
    )
    assert ask.stream
    assert ask.include_usage


@pytest.mark.parametrize(("text", "expected"), [("hello", 64), ("h" * 60, 37), ("h" * 500, 1)])
def test_tokens_not_asked_for_are_what_surely_fits(text: str, expected: int) -> None:
    raw = chat(messages=[{"role": "user", "content": text}])
    assert read_chat(raw, CONTROL, PLAN).body.max_tokens == expected


def test_a_model_that_control_lacks_is_left_to_admit() -> None:
    assert read_chat(chat(model="other"), CONTROL, PLAN).body.max_tokens == PLAN.max_tokens


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"colour": 1}, "colour", "unknown_parameter"),
    ({"messages": [{**TURN, "weight": 1}]}, "messages[...].weight", "unknown_parameter"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": []}, "messages", "invalid_value"),
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


PLAIN = read_chat(chat(), CONTROL, PLAN)
NEUTRAL: dict[str, list[Any]] = {
    "function_call": ["none", "auto"],
    "functions": [[]],
    "metadata": [{}],
    "modalities": [["text"]],
    "parallel_tool_calls": [True, False],
    "prompt_cache_retention": ["in_memory", "in-memory"],
    "response_format": [{"type": "text"}],
    "service_tier": ["auto", "default"],
    "store": [False],
    "tool_choice": ["none", "auto"],
    "tools": [[]],
    "verbosity": ["medium"],
    # served, and without effect
    "logit_bias": [{}],
    "logprobs": [False],
    "n": [1],
    "stop": [[]],
    "stream": [False],
    "stream_options": [{}, {"include_usage": False}, {"include_obfuscation": True}],
    "top_logprobs": [0],
}
UNLIKE: dict[str, list[Any]] = {
    "audio": [{"voice": CANARY, "format": "wav"}],
    "function_call": [{"name": CANARY}, CANARY],
    "functions": [[{"name": CANARY}], [None]],
    "metadata": [{CANARY: CANARY}, CANARY],
    "modalities": [["text", "audio"], [CANARY], []],
    "moderation": [{"model": CANARY}],
    "parallel_tool_calls": [CANARY],
    "prediction": [{"type": "content", "content": CANARY}],
    "prompt_cache_options": [{CANARY: CANARY}],
    "prompt_cache_retention": ["24h", CANARY],
    "reasoning_effort": ["high", CANARY],
    "response_format": [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": CANARY}}, CANARY],
    "service_tier": ["flex", "priority", CANARY],
    "store": [True, CANARY],
    "tool_choice": ["required", {"type": "function", "function": {"name": CANARY}}, CANARY],
    "tools": [[{"type": "function", "function": {"name": CANARY}}], {CANARY: CANARY}],
    "verbosity": ["low", CANARY],
    "web_search_options": [{}, {"search_context_size": CANARY}],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in NEUTRAL.items() for v in values])
def test_an_option_that_asks_for_nothing_changes_nothing(field: str, value: Any) -> None:
    assert read_chat(chat(**{field: value}), CONTROL, PLAN) == PLAIN


@pytest.mark.parametrize("field", sorted({*ChatBody.__struct_fields__} - {"model", "messages"}))
def test_every_option_may_be_null(field: str) -> None:
    assert read_chat(chat(**{field: None}), CONTROL, PLAN) == PLAIN


def test_all_neutral_values_at_once_are_one_plain_request() -> None:
    assert read_chat(chat(**{field: values[0] for field, values in NEUTRAL.items()}), CONTROL, PLAN) == PLAIN


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in UNLIKE.items() for v in values])
def test_an_option_that_is_not_served_is_refused_with_its_reason(field: str, value: Any) -> None:
    found = refusal(chat(**{field: value}))
    assert (found.status, found.code, found.param) == (400, "unknown_parameter", field)
    assert found.message == f"{field}: not supported here: {UNSERVED[field]}"
    assert CANARY not in found.message


def test_the_table_of_what_is_not_served_is_whole() -> None:
    assert set(UNLIKE) == set(UNSERVED) <= set(ChatBody.__struct_fields__)
    assert set(UNSERVED) & {"user", "safety_identifier", "prompt_cache_key"} == set()


def test_every_option_that_the_stock_client_knows_is_known_here() -> None:
    stock = set(get_type_hints(CompletionCreateParamsBase))
    assert "messages" in stock
    assert stock - set(ChatBody.__struct_fields__) == set()


def test_an_earlier_answer_without_tool_calls_comes_back_as_it_was_given() -> None:
    turn: dict[str, Any] = {"role": "assistant", "content": "c", "refusal": None, "tool_calls": [], "annotations": []}
    assert len(decode_messages(read_chat(chat(messages=[TURN, turn, TURN]), CONTROL, PLAN).messages)) == 3
    found = refusal(chat(messages=[TURN, {**turn, "tool_calls": [{"id": CANARY}]}]))
    assert found.message == "messages[1].tool_calls: not supported here. Leave it out."


def test_what_is_ignored_and_what_is_unknown() -> None:
    assert read_chat(chat(user="a", safety_identifier="b", prompt_cache_key="c"), CONTROL, PLAN) == PLAIN
    assert refusal(chat(colour=1)).message == "colour: unknown field. Leave it out."


def test_nothing_and_empty_messages_are_called_so() -> None:
    assert refusal(b"").message.startswith("The body is empty: ")
    blank = refusal(chat(messages=[{"role": "user", "content": ""}]))
    assert blank.message == "messages: expected 1 to 256 with content, came 1, all of them empty."


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
