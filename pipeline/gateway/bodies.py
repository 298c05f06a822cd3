"""The shapes of the HTTP bodies: OpenAI's chat and the simple one, both closed against unknown fields.

Options of OpenAI's that are not served here may still be sent with a value that asks for nothing: many clients name
every option that they have. ``UNSERVED`` says of each why any other value is refused, and which ones are not.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from pipeline.events.records import EndUser

NOTHING = "Leave it out."
_NO_TOOLS = "models here call no tools or functions."
_TEXT_ONLY = "answers here are text alone."
UNSERVED = {
    "audio": f"{_TEXT_ONLY} {NOTHING}",
    "function_call": f'{_NO_TOOLS} Leave it out, or send "none" or "auto".',
    "functions": f"{_NO_TOOLS} Leave it out, or send [].",
    "metadata": "nothing is kept beside a request. Leave it out, or send {}.",
    "modalities": f'{_TEXT_ONLY} Leave it out, or send ["text"].',
    "moderation": f"the plan of the key says what is looked for. {NOTHING}",
    "parallel_tool_calls": f"{_NO_TOOLS} Leave it out, or send true or false.",
    "prediction": f"predicted answers are not taken. {NOTHING}",
    "prompt_cache_options": f"the cache of prompts is not for callers to steer. {NOTHING}",
    "prompt_cache_retention": 'the cache of prompts is in memory alone. Leave it out, or send "in_memory".',
    "reasoning_effort": f"the effort of a model cannot be chosen. {NOTHING}",
    "response_format": 'answers here are not held to a format. Leave it out, or send {"type": "text"}.',
    "service_tier": 'the plan of the key says how it is served. Leave it out, or send "auto" or "default".',
    "store": "answers are not stored to be read again. Leave it out, or send false.",
    "tool_choice": f'{_NO_TOOLS} Leave it out, or send "none" or "auto".',
    "tools": f"{_NO_TOOLS} Leave it out, or send [].",
    "verbosity": 'the length of answers cannot be chosen but by max_tokens. Leave it out, or send "medium".',
    "web_search_options": f"models here search nothing. {NOTHING}",
}
Empty = Annotated[list[None], msgspec.Meta(max_length=0)]
_NoChoice = Literal["none", "auto"]


class ContentPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of parts other than text only the kind is read, so that it is what the error names."""

    type: str
    text: str | None = None
    image_url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    input_audio: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    file: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ChatTurn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Fields of type None exist because stock clients send them back as null with an earlier answer."""

    role: str
    content: str | list[ContentPart]
    name: str | None = None
    tool_call_id: str | None = None
    refusal: None = None
    tool_calls: Empty | None = None
    function_call: None = None
    audio: None = None
    annotations: list[str] | None = None


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["text"]


class Sampled(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The sampling options of both shapes."""

    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    timeout_ms: int | None = None
    stream: bool | None = None


class ChatBody(Sampled, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /v1/chat/completions``; ``safety_identifier``, or else ``user``, is stored with the decision;
    ``prompt_cache_key`` is read and ignored.

    From ``audio`` on, fields are OpenAI's that are not served: their types are what asks for nothing.
    ``top_k``, ``min_p``, ``repetition_penalty`` and ``timeout_ms`` are ours.
    """

    messages: list[ChatTurn]
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    user: EndUser | None = None
    safety_identifier: EndUser | None = None
    prompt_cache_key: str | None = None
    audio: None = None
    function_call: _NoChoice | None = None
    functions: Empty | None = None
    metadata: Annotated[dict[str, None], msgspec.Meta(max_length=0)] | None = None
    modalities: Annotated[list[Literal["text"]], msgspec.Meta(min_length=1, max_length=1)] | None = None
    moderation: None = None
    parallel_tool_calls: bool | None = None
    prediction: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: Literal["in_memory", "in-memory"] | None = None
    reasoning_effort: None = None
    response_format: TextFormat | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None
    tool_choice: _NoChoice | None = None
    tools: Empty | None = None
    verbosity: Literal["medium"] | None = None
    web_search_options: None = None


class SimpleBody(Sampled, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``POST /inference``: either ``prompt`` or ``messages``."""

    prompt: str | None = None
    messages: list[ChatTurn] | None = None
    idempotency: str | None = None
