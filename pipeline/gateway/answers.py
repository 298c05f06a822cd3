"""The JSON of answers: OpenAI's completion and chunk objects, and the simple shape."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.clock import now_ms
from pipeline.events import logprobs as logprobs_format
from pipeline.events.messages import Response
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.replies import Reply
from pipeline.gateway.state import PendingRequest

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_FINISH = {"length": "length", "content_filter": "content_filter"}


def event(value: Any) -> bytes:
    """Encode one server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def error_event(refusal: Refusal) -> bytes:
    """Encode a refusal that comes after the answer has begun."""
    return b"data: " + refusal.body() + b"\n\n"


def usage(end: Response) -> dict[str, int]:
    """Token counts under OpenAI's names."""
    return {
        "prompt_tokens": end.input_tokens,
        "completion_tokens": end.output_tokens,
        "total_tokens": end.input_tokens + end.output_tokens,
    }


class ChatShape:
    """``chat.completion`` and ``chat.completion.chunk`` objects of one request."""

    def __init__(self, pending: PendingRequest, model: str, include_usage: bool) -> None:
        self._id = f"chatcmpl-{pending.client_request}"
        self._model = model
        self._include_usage = include_usage
        self._created = now_ms() // 1000

    def first(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        return self._delta({"content": text})

    def last(self, reply: Reply) -> bytes:
        """Finish reason, usage and log-probabilities where asked for, and the end mark.

        An answer cut by policy ends as content_filter, and ``content_filter`` beside it says which guard cut it.
        """
        end = _end(reply)
        if end.result == "withheld":
            closing = self._delta({}, "content_filter", {"code": end.result, "reason": end.reason})
        else:
            closing = self._delta({}, _FINISH.get(end.finish, "stop"), logprobs=_logprobs(reply))
        if self._include_usage:
            closing += event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(end)})
        return closing + DONE

    def whole(self, text: str, reply: Reply) -> dict[str, Any]:
        end = _end(reply)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _logprobs(reply),
            "finish_reason": _FINISH.get(end.finish, "stop"),
        }
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(end)}

    def _delta(
        self,
        delta: dict[str, str],
        finish: str | None = None,
        cut: dict[str, str] | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        if cut is not None:
            choice["content_filter"] = cut
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return event({**chunk, "usage": None} if self._include_usage else chunk)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


class SimpleShape:
    """The answer of ``POST /inference`` and of ``GET /v1/requests/{id}``."""

    def __init__(self, pending: PendingRequest, model: str) -> None:
        self._client_request = pending.client_request
        self._model = model

    def first(self) -> bytes:
        return event({"client_request": self._client_request})

    def text(self, text: str) -> bytes:
        return event({"text": text})

    def last(self, reply: Reply) -> bytes:
        return event({**_end_fields(reply), "model": self._model}) + DONE

    def whole(self, text: str, reply: Reply) -> dict[str, Any]:
        return {"client_request": self._client_request, "text": text, "model": self._model, **_end_fields(reply)}


def request_status(client_request: str, reply: Reply | None, position: Response | None = None) -> dict[str, Any]:
    """The body of ``GET /v1/requests/{id}``: ``open`` until the end came by, with the position while it is queued."""
    if reply is None or reply.end is None:
        text = bytes(reply.text).decode("utf-8", "replace") if reply else ""
        status: dict[str, Any] = {"client_request": client_request, "result": "open", "text": text}
        if position is not None:
            status["queue"] = {"position": position.ahead, "eta_ms": position.eta_ms if position.eta_ms >= 0 else None}
        return status
    text = (reply.whole or b"").decode("utf-8", "replace")
    return {"client_request": client_request, "text": text, **_end_fields(reply)}


def _end(reply: Reply) -> Response:
    assert reply.end is not None
    return reply.end


def _logprobs(reply: Reply) -> dict[str, Any] | None:
    """OpenAI's ``logprobs`` of a choice."""
    packed = reply.logprobs()
    return {"content": logprobs_format.content(packed), "refusal": None} if packed else None


def _end_fields(reply: Reply) -> dict[str, Any]:
    end = _end(reply)
    counts = {"input_tokens": end.input_tokens, "output_tokens": end.output_tokens}
    fields: dict[str, Any] = {"request": end.request, "result": end.result, "finish": end.finish}
    if end.reason:
        fields["reason"] = end.reason
    fields["usage"] = {**counts, "total_tokens": end.input_tokens + end.output_tokens}
    content = _logprobs(reply)
    if content:
        fields["logprobs"] = content
    return fields
