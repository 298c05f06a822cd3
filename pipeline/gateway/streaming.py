"""Sends the answer of a written request to its HTTP client, whole or as server-sent events."""

from __future__ import annotations

import time
from typing import Protocol

from aiohttp import web

from pipeline.events.messages import Response
from pipeline.gateway.answers import KEEP_ALIVE, error_event
from pipeline.gateway.limits import limit_headers
from pipeline.gateway.refusals import no_answer
from pipeline.gateway.replies import Reply
from pipeline.gateway.state import GatewayState, PendingRequest, naming_headers

ARRIVED = web.RequestKey("arrived", float)
ANSWER_HEADERS = web.RequestKey("answer_headers", dict[str, str])
_IDLE_S = 15.0


class ReplyShape(Protocol):
    """The JSON of one route: server-sent events of a stream, or one whole document."""

    def first(self) -> bytes: ...
    def text(self, text: str) -> bytes: ...
    def last(self, reply: Reply) -> bytes: ...
    def whole(self, text: str, reply: Reply) -> dict[str, object]: ...


async def send_reply(
    request: web.Request, state: GatewayState, pending: PendingRequest, shape: ReplyShape, *, stream: bool
) -> web.StreamResponse:
    """Wait for the reply and send it. Raises Refusal where it is no success and nothing was sent yet."""
    request[ANSWER_HEADERS] = pending.headers
    try:
        if stream:
            return await _stream(request, state, pending, shape)
        reply = await pending.waiter.wait_end(pending.seconds)
    except TimeoutError:
        raise no_answer() from None
    assert reply.end is not None
    naming = naming_headers(pending.client_request, reply.end.request)
    request[ANSWER_HEADERS] = {**naming, **limit_headers(reply.quota)}
    fault = reply.fault()
    if fault is not None:
        raise fault
    _count_tokens(state, reply.end)
    return web.json_response(shape.whole((reply.whole or b"").decode("utf-8", "replace"), reply))


async def _stream(
    request: web.Request, state: GatewayState, pending: PendingRequest, shape: ReplyShape
) -> web.StreamResponse:
    """Headers are sent with the first text, so that a refusal before it gets its own HTTP status."""
    response: web.StreamResponse | None = None
    waiter = pending.waiter
    try:
        async for text in waiter.texts(pending.seconds, _IDLE_S):
            if response is None and text:
                response = await _begin(request, pending, shape)
                state.metrics.took("sluice_gateway_first_text_seconds", time.monotonic() - request[ARRIVED])
            if response is not None:
                await response.write(shape.text(text) if text else KEEP_ALIVE)
    except TimeoutError:
        if response is None:
            raise
        return await _finish(response, error_event(no_answer()))
    end = waiter.reply.end
    fault = waiter.reply.fault(streamed=True)
    assert end is not None
    if response is None and fault is not None:
        request[ANSWER_HEADERS] = _stream_headers(pending)
        raise fault
    response = response or await _begin(request, pending, shape)
    if fault is not None and end.result != "withheld":
        return await _finish(response, error_event(fault))
    _count_tokens(state, end)
    return await _finish(response, shape.last(waiter.reply))


async def _begin(request: web.Request, pending: PendingRequest, shape: ReplyShape) -> web.StreamResponse:
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    response = web.StreamResponse(headers={**headers, **_stream_headers(pending)})
    await response.prepare(request)
    await response.write(shape.first())
    return response


def _stream_headers(pending: PendingRequest) -> dict[str, str]:
    return {**pending.headers, **limit_headers(pending.waiter.reply.quota)}


async def _finish(response: web.StreamResponse, closing: bytes) -> web.StreamResponse:
    await response.write(closing)
    await response.write_eof()
    return response


def _count_tokens(state: GatewayState, end: Response) -> None:
    state.metrics.count("sluice_gateway_tokens_total", "input", by=end.input_tokens)
    state.metrics.count("sluice_gateway_tokens_total", "output", by=end.output_tokens)
