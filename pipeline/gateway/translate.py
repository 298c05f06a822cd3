"""HTTP bodies are translated to the body of a record, each misfit refused with the name of its field.

Ranges live in ``wire.InferenceBody`` alone: the body made here is read back through its decoder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from inference.types import Turn, input_token_bound
from pipeline.errors import Malformed
from pipeline.events import wire
from pipeline.events.control import Control, Plan
from pipeline.events.wire import InferenceBody, Message
from pipeline.gateway.bodies import ChatBody, ChatTurn, ContentPart, Sampled, SimpleBody
from pipeline.gateway.decoding import decode_body, field_refusal, unserved
from pipeline.gateway.refusals import Refusal, because, invalid

MAX_BODY_BYTES = 1024 * 1024
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "document",
    "document": "document",
}
_MAX_MESSAGES = 256
_TOKEN = re.compile(r"[0-9]{1,10}", re.ASCII)
_AS_THEY_ARE = (
    *("temperature", "top_p", "top_k", "seed", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "logprobs", "timeout_ms"),
)
"""Options that the record spells as the HTTP body does."""
_CHAT = msgspec.json.Decoder(ChatBody)
_SIMPLE = msgspec.json.Decoder(SimpleBody)


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """One request of a caller. ``body.sealed`` is still empty; ``messages`` is the JSON to be sealed into it."""

    body: InferenceBody
    messages: bytes
    stream: bool
    include_usage: bool = False


def read_chat(raw: bytes, control: Control, plan: Plan, idempotency: str = "") -> TranslatedRequest:
    """Translate a chat completion request. Raises Refusal naming the field at fault."""
    chat = decode_body(_CHAT, raw)
    if chat.model is None:
        raise invalid("model", "model: expected a model id; GET /v1/models lists them.", "missing_required_parameter")
    if chat.n not in (None, 1):
        raise invalid("n", "n: expected 1; send one request for each answer.")
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise invalid("max_tokens", "max_tokens: expected it or max_completion_tokens, not both.")
    messages = _messages(chat.messages)
    if chat.store:
        raise unserved("store")
    options = chat.stream_options
    if options is not None and options.include_usage and not chat.stream:
        raise invalid("stream_options", "stream_options: expected only together with stream true.")
    max_tokens = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    if max_tokens is None:
        max_tokens = _default_max_tokens(chat.model, messages, control, plan)
    body = _body(chat, chat.model, max_tokens, idempotency, chat.safety_identifier or chat.user or "")
    usage = bool(options and options.include_usage)
    return TranslatedRequest(body, msgspec.json.encode(messages), bool(chat.stream), usage)


def read_simple(raw: bytes, control: Control, plan: Plan, idempotency: str = "") -> TranslatedRequest:
    """Translate a request in the simple shape. Raises Refusal naming the field at fault."""
    simple = decode_body(_SIMPLE, raw)
    if (simple.prompt is None) == (simple.messages is None):
        raise invalid("prompt", "prompt: expected either prompt or messages.", "missing_required_parameter")
    turns = simple.messages if simple.prompt is None else [ChatTurn("user", simple.prompt)]
    messages = _messages(turns or [])
    model = simple.model or next(iter(plan.models), "")
    max_tokens = simple.max_tokens
    if max_tokens is None:
        max_tokens = _default_max_tokens(model, messages, control, plan)
    body = _body(simple, model, max_tokens, idempotency or simple.idempotency or "")
    return TranslatedRequest(body, msgspec.json.encode(messages), bool(simple.stream), True)


def too_large(limit: int = MAX_BODY_BYTES) -> Refusal:
    """The refusal of a body over the limit."""
    return because("input_too_long", message=f"The body is too large: expected at most {limit} bytes. Send less text.")


def _messages(turns: list[ChatTurn]) -> tuple[Message, ...]:
    messages = []
    for index, turn in enumerate(turns):
        role = _ROLES.get(turn.role)
        if role is None:
            where = f"messages[{index}].role"
            raise invalid(where, f"{where}: expected one of {', '.join(_ROLES)}.")
        messages.append(Message(role, _text(turn.content, f"messages[{index}].content")))
    count = len(messages)
    if not 1 <= count <= _MAX_MESSAGES or not any(message.content for message in messages):
        got = f"{count}, all of them empty" if 1 <= count <= _MAX_MESSAGES else f"{count}"
        raise invalid("messages", f"messages: expected 1 to {_MAX_MESSAGES} with content, got {got}.")
    return tuple(messages)


def _text(content: str | list[ContentPart], where: str) -> str:
    if isinstance(content, str):
        return content
    for index, part in enumerate(content):
        field = f"{where}[{index}]"
        if part.type != "text":
            raise invalid(f"{field}.type", f"{field}.type: expected text; images, audio and files are not supported.")
        if part.text is None:
            raise invalid(f"{field}.text", f"{field}.text: missing. It is required.", "missing_required_parameter")
        for other in ("image_url", "input_audio", "file"):
            if getattr(part, other) is not msgspec.UNSET:
                raise invalid(f"{field}.{other}", f"{field}.{other}: unknown field. Leave it out.", "unknown_parameter")
    return "".join(part.text or "" for part in content)


def _body(options: Sampled, model: str, max_tokens: int, idempotency: str, end_user: str = "") -> InferenceBody:
    if options.top_logprobs and not options.logprobs:
        raise invalid("top_logprobs", "top_logprobs: expected only together with logprobs true.")
    stop = (options.stop,) if isinstance(options.stop, str) else tuple(options.stop or ())
    fields: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "sealed": "",
        **{name: getattr(options, name) for name in _AS_THEY_ARE},
        "stop": stop or None,
        "top_logprobs": options.top_logprobs if options.logprobs else None,
        "logit_bias": _biases(options.logit_bias) or None,
        "idempotency": idempotency,
        "end_user": end_user,
    }
    try:
        encoded = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
        return wire.decode_inference(encoded)
    except Malformed as error:
        raise field_refusal(str(error).removeprefix("not an inference body: ")) from None
    except OverflowError:
        raise invalid(None, "A number is out of range: expected at most 64 bits.") from None


def _biases(biases: dict[str, float] | None) -> list[tuple[int, float]] | None:
    if biases is None:
        return None
    if not all(_TOKEN.fullmatch(token) for token in biases):
        raise invalid("logit_bias", "logit_bias: expected token ids as keys, whole numbers of at most 10 digits.")
    return [(int(token), value) for token, value in biases.items()]


def _default_max_tokens(model: str, messages: tuple[Message, ...], control: Control, plan: Plan) -> int:
    """The most tokens that surely fit beside the prompt, for a caller who names no number."""
    document = control.models.get(model)
    if document is None:
        return plan.max_tokens
    bound = input_token_bound(tuple(Turn(message.role, message.content) for message in messages))
    return max(1, min(plan.max_tokens, document.context - bound))
