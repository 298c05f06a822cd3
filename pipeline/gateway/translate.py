"""HTTP bodies to what is asked, each misfit with the name of its field.

Ranges live in ``wire.InferenceBody`` alone: the body made here is read back through the door's own decoder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from inference.types import Turn, input_token_bound
from pipeline.errors import Malformed
from pipeline.events import wire
from pipeline.events.control import Control, Plan
from pipeline.events.wire import InferenceBody, Message
from pipeline.gateway.bodies import NOTHING, UNSERVED, ChatBody, ChatTurn, ContentPart, Sampled, SimpleBody
from pipeline.gateway.refusals import Refusal, because, invalid

_T = TypeVar("_T")

MAX_BODY_BYTES = 1024 * 1024
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "document",
    "document": "document",
}
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_NO_NAME = re.compile(r"[^\w.:/ -]")
_MOST_NAME = 64
_MISSING = re.compile(r"missing required field `(\w+)`")
_TOKEN = re.compile(r"[0-9]{1,10}", re.ASCII)
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_ROOT = re.compile(r"\w+")
_ELEMENT = re.compile(r"\[\d*\]$")
_EMPTY = ("Expected `null`", "Expected `array` of length <= 0")


@dataclass(frozen=True, slots=True)
class TranslatedRequest:
    """What a caller asks for. ``body.sealed`` is still empty; ``messages`` is the JSON to be sealed into it."""

    body: InferenceBody
    messages: bytes
    stream: bool
    include_usage: bool = False


_chat = msgspec.json.Decoder(ChatBody)
_simple = msgspec.json.Decoder(SimpleBody)


def read_chat(raw: bytes, control: Control, plan: Plan, idempotency: str = "") -> TranslatedRequest:
    """A chat completion request. Raises Refusal naming the field at fault."""
    asked: ChatBody = _decode(_chat, raw)
    if asked.model is None:
        raise invalid("model", "model: expected a model id; GET /v1/models lists them.", "missing_required_parameter")
    if asked.n not in (None, 1):
        raise invalid("n", "n: expected 1; send one request for each answer.")
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise invalid("max_tokens", "max_tokens: expected it or max_completion_tokens, not both.")
    turns = _messages(asked.messages)
    if asked.store:
        raise _unserved("store")
    options = asked.stream_options
    if options is not None and options.include_usage and not asked.stream:
        raise invalid("stream_options", "stream_options: expected only together with stream true.")
    wanted = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    body = _body(asked, turns, wanted, control, plan, idempotency)
    usage = bool(options and options.include_usage)
    return TranslatedRequest(body, msgspec.json.encode(turns), bool(asked.stream), usage)


def read_simple(raw: bytes, control: Control, plan: Plan, idempotency: str = "") -> TranslatedRequest:
    """A request in the simple shape. Raises Refusal naming the field at fault."""
    asked: SimpleBody = _decode(_simple, raw)
    if (asked.prompt is None) == (asked.messages is None):
        raise invalid("prompt", "prompt: expected either prompt or messages.", "missing_required_parameter")
    given = asked.messages if asked.prompt is None else [ChatTurn("user", asked.prompt)]
    turns = _messages(given or [])
    chosen = asked if asked.model or not plan.models else msgspec.structs.replace(asked, model=plan.models[0])
    body = _body(chosen, turns, asked.max_tokens, control, plan, idempotency or asked.idempotency or "")
    return TranslatedRequest(body, msgspec.json.encode(turns), bool(asked.stream), True)


def _decode(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        came = "The body is not JSON" if raw else "The body is empty"
        message = f"{came}: expected one JSON object in UTF-8, without NaN, Infinity or lone surrogates."
        raise invalid(None, message, "invalid_json") from None


def _fault(text: str) -> Refusal:
    """What msgspec says, with the field as ``param``. Its messages quote types and field names, never values."""
    path = _PATH.search(text)
    where = path.group(1) if path else ""
    said = _PATH.sub("", text)
    root = _ROOT.match(where)
    if root and root.group() in UNSERVED:
        return _unserved(root.group())
    unknown = _UNKNOWN.search(said)
    if unknown:
        name = _NO_NAME.sub("?", unknown.group(1)[:_MOST_NAME])
        param = f"{where}.{name}" if where else name
        return invalid(param, f"{param}: unknown field. Leave it out.", "unknown_parameter")
    missing = _MISSING.search(said)
    if missing:
        param = f"{where}.{missing.group(1)}" if where else missing.group(1)
        return invalid(param, f"{param}: missing. It is required.", "missing_required_parameter")
    if said.startswith(_EMPTY):
        where = _ELEMENT.sub("", where)
        return invalid(where, f"{where}: not supported here. {NOTHING}", "invalid_type")
    return invalid(where or None, f"{where or 'body'}: {said[0].lower()}{said[1:]}.", "invalid_type")


def _unserved(field: str) -> Refusal:
    """What the type of an unserved field refuses may quote its value, so the table alone speaks."""
    return invalid(field, f"{field}: not supported here: {UNSERVED[field]}", "unknown_parameter")


def _messages(turns: list[ChatTurn]) -> tuple[Message, ...]:
    found = []
    for index, turn in enumerate(turns):
        role = _ROLES.get(turn.role)
        if role is None:
            where = f"messages[{index}].role"
            raise invalid(where, f"{where}: expected one of {', '.join(_ROLES)}.")
        found.append(Message(role, _text(turn.content, f"messages[{index}].content")))
    if not 1 <= len(found) <= 256 or not any(m.content for m in found):
        came = f"{len(found)}, all of them empty" if found and len(found) <= 256 else f"{len(found)}"
        raise invalid("messages", f"messages: expected 1 to 256 with content, got {came}.")
    return tuple(found)


def _text(content: str | list[ContentPart], where: str) -> str:
    if isinstance(content, str):
        return content
    for index, part in enumerate(content):
        if part.type != "text":
            at = f"{where}[{index}].type"
            raise invalid(at, f"{at}: expected text; images, audio and files are not supported.")
        if part.text is None:
            at = f"{where}[{index}].text"
            raise invalid(at, f"{at}: missing. It is required.", "missing_required_parameter")
        for other in ("image_url", "input_audio", "file"):
            if getattr(part, other) is not msgspec.UNSET:
                at = f"{where}[{index}].{other}"
                raise invalid(at, f"{at}: unknown field. Leave it out.", "unknown_parameter")
    return "".join(part.text or "" for part in content)


def _body(
    asked: Sampled, turns: tuple[Message, ...], wanted: int | None, control: Control, plan: Plan, idempotency: str
) -> InferenceBody:
    model = asked.model or ""
    if asked.top_logprobs and not asked.logprobs:
        raise invalid("top_logprobs", "top_logprobs: expected only together with logprobs true.")
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    given = {
        "model": model,
        "max_tokens": _room(model, turns, control, plan) if wanted is None else wanted,
        "sealed": "",
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "seed": asked.seed,
        "stop": stop or None,
        "min_p": asked.min_p,
        "repetition_penalty": asked.repetition_penalty,
        "presence_penalty": asked.presence_penalty,
        "frequency_penalty": asked.frequency_penalty,
        "logprobs": asked.logprobs,
        "top_logprobs": asked.top_logprobs if asked.logprobs else None,
        "logit_bias": _biases(asked.logit_bias) or None,
        "timeout_ms": asked.timeout_ms,
        "idempotency": idempotency,
    }
    try:
        return wire.decode_inference(msgspec.json.encode({k: v for k, v in given.items() if v is not None}))
    except Malformed as error:
        raise _fault(str(error).removeprefix("not an inference body: ")) from None
    except OverflowError:
        raise invalid(None, "A number is out of range: expected at most 64 bits.") from None


def _biases(asked: dict[str, float] | None) -> list[tuple[int, float]] | None:
    if asked is None:
        return None
    if not all(_TOKEN.fullmatch(token) for token in asked):
        raise invalid("logit_bias", "logit_bias: expected token ids as keys, whole numbers of at most 10 digits.")
    return [(int(token), value) for token, value in asked.items()]


def _room(model: str, turns: tuple[Message, ...], control: Control, plan: Plan) -> int:
    """Tokens to ask for where the caller names no number: what surely fits beside the prompt."""
    known = control.models.get(model)
    if known is None:
        return plan.max_tokens
    bound = input_token_bound(tuple(Turn(m.role, m.content) for m in turns))
    return max(1, min(plan.max_tokens, known.context - bound))


def too_large(limit: int = MAX_BODY_BYTES) -> Refusal:
    return because("input_too_long", message=f"The body is too large: expected at most {limit} bytes. Send less text.")
