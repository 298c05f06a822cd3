"""The JSON that callers get: OpenAI's completion and chunk objects, and the simple answer."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from pipeline.events import logprobs as readout
from pipeline.events.messages import Response
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.replies import Reply
from pipeline.gateway.state import PendingRequest

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_FINISH = {"length": "length", "content_filter": "content_filter"}


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def error_event(refusal: Refusal) -> bytes:
    return b"data: " + refusal.body() + b"\n\n"


def usage(end: Response) -> dict[str, int]:
    return {
        "prompt_tokens": end.input_tokens,
        "completion_tokens": end.output_tokens,
        "total_tokens": end.input_tokens + end.output_tokens,
    }


class ChatShape:
    """``chat.completion`` and ``chat.completion.chunk`` objects of one request."""

    def __init__(self, pending: PendingRequest, model: str, include_usage: bool) -> None:
        self._id = f"chatcmpl-{pending.client_request}"
        self._model, self._include_usage = model, include_usage
        self._created = int(time.time())

    def first(self) -> bytes:
        return self._delta({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        return self._delta({"content": text})

    def last(self, reply: Reply) -> bytes:
        """Finish reason, usage and log-probabilities where asked for, and the end mark.

        An answer cut by policy ends as content_filter, and ``content_filter`` beside it says which guard cut it.
        """
        end = _end(reply)
        if end.result == "withheld":
            closing = self._delta({}, "content_filter", {"code": end.result, "reason": end.reason})
        else:
            closing = self._delta({}, _FINISH.get(end.finish, "stop"), told=_told(reply))
        if self._include_usage:
            closing += event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(end)})
        return closing + DONE

    def whole(self, text: str, reply: Reply) -> dict[str, Any]:
        end, message = _end(reply), {"role": "assistant", "content": text, "refusal": None}
        finish = _FINISH.get(end.finish, "stop")
        choice = {"index": 0, "message": message, "logprobs": _told(reply), "finish_reason": finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(end)}

    def _delta(
        self,
        delta: dict[str, str],
        finish: str | None = None,
        cut: dict[str, str] | None = None,
        told: dict[str, Any] | None = None,
    ) -> bytes:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": told, "finish_reason": finish}
        if cut is not None:
            choice["content_filter"] = cut
        found = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return event({**found, "usage": None} if self._include_usage else found)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


class SimpleShape:
    """The answer of ``POST /inference`` and of ``GET /v1/requests/{id}``."""

    def __init__(self, pending: PendingRequest, model: str) -> None:
        self._client_request, self._model = pending.client_request, model

    def first(self) -> bytes:
        return event({"client_request": self._client_request})

    def piece(self, text: str) -> bytes:
        return event({"text": text})

    def last(self, reply: Reply) -> bytes:
        return event({**_ended(reply), "model": self._model}) + DONE

    def whole(self, text: str, reply: Reply) -> dict[str, Any]:
        return {"client_request": self._client_request, "text": text, "model": self._model, **_ended(reply)}


def collected(client_request: str, reply: Reply | None, place: Response | None = None) -> dict[str, Any]:
    """What is known of a request: ``open`` until its end came by, with its place in the queue while it waits there."""
    if reply is None or reply.end is None:
        text = bytes(reply.text).decode("utf-8", "replace") if reply else ""
        known: dict[str, Any] = {"client_request": client_request, "result": "open", "text": text}
        if place is not None:
            known["queue"] = {"position": place.ahead, "eta_ms": place.eta_ms if place.eta_ms >= 0 else None}
        return known
    text = (reply.whole or b"").decode("utf-8", "replace")
    return {"client_request": client_request, "text": text, **_ended(reply)}


def _end(reply: Reply) -> Response:
    assert reply.end is not None
    return reply.end


def _told(reply: Reply) -> dict[str, Any] | None:
    """OpenAI's ``logprobs`` of a choice."""
    packed = reply.logprobs()
    return {"content": readout.content(packed), "refusal": None} if packed else None


def _ended(reply: Reply) -> dict[str, Any]:
    end, told = _end(reply), _told(reply)
    counted = {"input_tokens": end.input_tokens, "output_tokens": end.output_tokens}
    total = {**counted, "total_tokens": end.input_tokens + end.output_tokens}
    why = {"reason": end.reason} if end.reason else {}
    read = {"logprobs": told} if told else {}
    return {"request": end.request, "result": end.result, "finish": end.finish, **why, "usage": total, **read}
