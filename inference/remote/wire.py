"""OpenAI's chat completions: the request body and the events of a stream. Sans-IO; every input is hostile.

vLLM's extensions are used where they are: ``top_k``, ``min_p``, ``repetition_penalty``, ``cache_salt`` (hex only: other
salts have stopped servers, CVE-2026-105756) and ``continuous_usage_stats``, which counts tokens in every event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from inference.types import FinishReason, GenerationRequest

MAX_LINE = 256 << 10
"""Bytes of one line of a stream."""
BYTES_PER_TOKEN = 4096
EVENTS_PER_TOKEN = 4
"""Bounds of a stream for each token that was asked for."""
SLACK = 256
"""Tokens and events that a stream may have on top."""
_ENDS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "content_filter": FinishReason.STOP}
_OPTIONAL = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class UpstreamFault(Exception):
    """The server failed or broke its protocol; the text says how and quotes nothing that it sent."""

    def __init__(
        self, message: str, finish: FinishReason = FinishReason.ERROR, *, again: bool = False, pause_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.finish = finish
        self.again = again
        """True where the same request may be sent again."""
        self.pause_s = pause_s
        """Seconds after which the server wants it again."""


class ServerUsage(msgspec.Struct, frozen=True):
    """Tokens so far, as the server counts them."""

    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _StreamEvent(msgspec.Struct, frozen=True):
    choices: Annotated[list[_Choice], msgspec.Meta(max_length=1)] = msgspec.field(default_factory=list)
    usage: ServerUsage | None = None
    error: Any = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; ``finish`` None while it goes on."""

    text: str
    finish: FinishReason | None
    usage: ServerUsage | None


_decoder = msgspec.json.Decoder(_StreamEvent)


def body(request: GenerationRequest, model: str, salt: str) -> dict[str, Any]:
    """The JSON body of a request. Draws are seeded by request id, so that another attempt draws the same."""
    sampling = request.sampling
    document: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": turn.text} for turn in request.turns],
        "max_tokens": request.max_tokens,
        "temperature": sampling.temperature,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "cache_salt": salt,
    }
    if sampling.temperature > 0:
        digest = hashlib.sha256(f"{request.request_id}\x00{sampling.seed}".encode()).digest()
        document["seed"] = int.from_bytes(digest[:8], "big") >> 1
    if sampling.stop:
        document["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        document["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    for name, usual in _OPTIONAL.items():
        if getattr(sampling, name) != usual:
            document[name] = getattr(sampling, name)
    return document


class EventLines:
    """Payloads of server-sent events out of bytes that arrive in pieces; comments and other fields are passed over."""

    def __init__(self, max_tokens: int) -> None:
        self._bytes = BYTES_PER_TOKEN * (max_tokens + SLACK)
        self._events = EVENTS_PER_TOKEN * max_tokens + SLACK
        self._rest = b""

    def push(self, raw: bytes) -> Iterator[bytes]:
        """The payloads that ``raw`` completes. Raises UpstreamFault at the one that passes a bound."""
        self._bytes -= len(raw)
        *lines, self._rest = (self._rest + raw).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._events -= 1
                if self._events < 0:
                    raise UpstreamFault("the model server sent more events than its answer may have")
                yield line[5:].strip()
        if self._bytes < 0 or len(self._rest) > MAX_LINE:
            raise UpstreamFault("the model server sent more bytes than its answer may have")


def read_event(raw: bytes) -> Event:
    """One payload. Raises UpstreamFault."""
    try:
        event = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamFault("the model server sent an event that is no chat completion chunk") from None
    if event.error is not None:
        raise UpstreamFault("the model server broke off with an error")
    choice = event.choices[0] if event.choices else _Choice()
    finish = choice.finish_reason
    if finish is not None and finish not in _ENDS:
        raise UpstreamFault("the model server ended the answer for a reason that is none of its protocol")
    return Event(choice.delta.content or "", _ENDS[finish] if finish else None, event.usage)
