"""Options of OpenAI's that are not served: taken where they ask for nothing, else refused by a table, with a reason."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from pipeline.events.wire import decode_messages
from pipeline.gateway.bodies import UNSERVED, ChatBody
from pipeline.gateway.translate import read_chat
from tests.unit.pipeline.gateway.chat_requests import CANARY, CONTROL, PLAN, TURN, chat, refusal

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
    assert read_chat(chat(prompt_cache_key="c"), CONTROL, PLAN) == PLAIN
    assert refusal(chat(colour=1)).message == "colour: unknown field. Leave it out."
