"""The HTTP routes. Each handler is short; what it raises becomes OpenAI's error shape in ``app``."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from aiohttp import web

from pipeline.events import plans
from pipeline.events.ids import is_request_id
from pipeline.events.messages import Response
from pipeline.events.wire import MAX_VALUE_BYTES, SKEW_MS
from pipeline.gateway.answers import KEEP_ALIVE, ChatShape, SimpleShape, collected, error_event
from pipeline.gateway.auth import ApiCaller
from pipeline.gateway.connections import encoded, no_http
from pipeline.gateway.refusals import Refusal, because, invalid, no_answer
from pipeline.gateway.replies import Reply
from pipeline.gateway.state import GatewayState, PendingRequest, named
from pipeline.gateway.translate import TranslatedRequest, read_chat, read_simple, too_large
from pipeline.gateway.writer import now_ms

DOOR = web.AppKey("door", GatewayState)
ARRIVED = web.RequestKey("arrived", float)
ANSWER_HEADERS = web.RequestKey("answer_headers", dict[str, str])
_READ_S = 30
_IDLE_S = 15.0
_ENCODINGS = frozenset({"identity", "gzip", "deflate"})
_MAX_WAIT_MS = 60_000


class ReplyShape(Protocol):
    def first(self) -> bytes: ...
    def piece(self, text: str) -> bytes: ...
    def last(self, reply: Reply) -> bytes: ...
    def whole(self, text: str, reply: Reply) -> dict[str, object]: ...


async def chat_completions(request: web.Request) -> web.StreamResponse:
    door, caller = await _enter(request)
    ask = read_chat(await _body(request), door.control, caller.plan, _idempotency(request))
    async with door.open(caller, ask) as pending:
        shape = ChatShape(pending, ask.body.model, ask.include_usage)
        return await _answer(request, door, ask, pending, shape)


async def inference(request: web.Request) -> web.StreamResponse:
    door, caller = await _enter(request)
    ask = read_simple(await _body(request), door.control, caller.plan, _idempotency(request))
    async with door.open(caller, ask) as pending:
        return await _answer(request, door, ask, pending, SimpleShape(pending, ask.body.model))


async def models(request: web.Request) -> web.Response:
    door, caller = await _enter(request)
    return web.json_response({"object": "list", "data": [_model(caller, m) for m in _allowed(door, caller)]})


async def model(request: web.Request) -> web.Response:
    door, caller = await _enter(request)
    wanted = request.match_info["model"]
    if wanted not in _allowed(door, caller):
        raise because("unknown_model")
    return web.json_response(_model(caller, wanted))


async def held_request(request: web.Request) -> web.Response:
    """The outcome of a request of the same principal, or its place in the queue, by either of its ids."""
    door, caller = await _enter(request)
    asked, owner = request.match_info["id"], caller.principal.id
    wait = request.query.get("wait_ms", "0")
    if not (wait.isascii() and wait.isdigit() and len(wait) <= 6 and int(wait) <= _MAX_WAIT_MS):
        raise invalid("wait_ms", f"wait_ms: expected 0 to {_MAX_WAIT_MS}.")
    if not (asked.startswith(f"{owner}:") or is_request_id(door.control.generation, asked)):
        # ids of other principals of the same tenant read as absent, whether they exist or not
        raise because("no_such_request", message="No request of this principal has that id.")
    opener, name = door.opener(caller.tenant.id), (caller.tenant.id, asked)
    reply = await door.room.held(name, opener, int(wait) / 1000, owner)
    fault = reply.fault() if reply else None
    if fault is not None:
        raise fault
    answer = collected(door.room.client_request(name) if reply else asked, reply, door.room.queue_position(name))
    return web.json_response(answer, status=202 if answer["result"] == "open" else 200)


async def wire(request: web.Request) -> web.Response:
    """What a direct producer needs to write its own records; see WIRE.md beside the producer."""
    door, caller = await _enter(request)
    deployment = door.control.require_deployment()
    document = {
        "version": 1,
        "generation": deployment.generation,
        "bootstrap": door.settings.advertised_bootstrap or door.settings.bootstrap,
        "topic": "requests",
        "partitions": deployment.partitions,
        "partitioner": "murmur2",
        "organisation": caller.tenant.organisation,
        "tenant": caller.tenant.id,
        "principal": caller.principal.id,
        "key": caller.key,
        "client_request_prefix": f"{caller.principal.id}:",
        "lane": -1,
        "hpke_public": caller.tenant.hpke_public,
        "models": _allowed(door, caller),
        "max_tokens": caller.plan.max_tokens,
        "max_input_bytes": caller.plan.max_input_bytes,
        "max_value_bytes": MAX_VALUE_BYTES,
        "skew_ms": SKEW_MS,
        "time": now_ms(),
    }
    return web.json_response(document)


async def healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    faults = request.app[DOOR].faults()
    return web.json_response({"ready": not faults, "faults": faults}, status=503 if faults else 200)


async def metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[DOOR].metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


async def _answer(
    request: web.Request, door: GatewayState, ask: TranslatedRequest, pending: PendingRequest, shape: ReplyShape
) -> web.StreamResponse:
    request[ANSWER_HEADERS] = pending.headers
    try:
        if ask.stream:
            return await _stream(request, door, pending, shape)
        reply = await pending.waiter.ended(pending.seconds)
    except TimeoutError:
        raise no_answer() from None
    assert reply.end is not None
    request[ANSWER_HEADERS] = named(pending.client_request, reply.end.request)
    fault = reply.fault()
    if fault is not None:
        raise fault
    _count(door, reply.end)
    return web.json_response(shape.whole((reply.whole or b"").decode("utf-8", "replace"), reply))


async def _stream(
    request: web.Request, door: GatewayState, pending: PendingRequest, shape: ReplyShape
) -> web.StreamResponse:
    """Headers are sent with the first text, so that whatever is refused before it gets its own HTTP status."""
    response: web.StreamResponse | None = None
    waiter = pending.waiter
    try:
        async for text in waiter.pieces(pending.seconds, _IDLE_S):
            if response is None and text:
                response = await _begin(request, pending, shape)
                door.metrics.took("sluice_gateway_first_text_seconds", time.monotonic() - request[ARRIVED])
            if response is not None:
                await response.write(shape.piece(text) if text else KEEP_ALIVE)
    except TimeoutError:
        if response is None:
            raise
        return await _finish(response, error_event(no_answer()))
    end, fault = waiter.reply.end, waiter.reply.fault(streamed=True)
    assert end is not None
    if response is None and fault is not None:
        raise fault
    response = response or await _begin(request, pending, shape)
    if fault is not None and end.result != "withheld":
        return await _finish(response, error_event(fault))
    _count(door, end)
    return await _finish(response, shape.last(waiter.reply))


async def _begin(request: web.Request, pending: PendingRequest, shape: ReplyShape) -> web.StreamResponse:
    headers = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    response = web.StreamResponse(headers={**headers, **pending.headers})
    await response.prepare(request)
    await response.write(shape.first())
    return response


async def _finish(response: web.StreamResponse, closing: bytes) -> web.StreamResponse:
    await response.write(closing)
    await response.write_eof()
    return response


async def _enter(request: web.Request) -> tuple[GatewayState, ApiCaller]:
    door = request.app[DOOR]
    return door, await door.caller(request.headers.get("Authorization"))


async def _body(request: web.Request) -> bytes:
    limit = request.app[DOOR].settings.bounds.body_bytes
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    if request.headers.get("Content-Encoding", "identity").lower() not in _ENCODINGS:
        raise encoded()
    try:
        async with asyncio.timeout(_READ_S):
            return await request.read()
    except web.RequestPayloadError:
        raise encoded() if "Content-Encoding" in request.headers else no_http(None, None) from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large(limit) from None
    except TimeoutError:
        message = f"The body did not arrive within {_READ_S} s."
        raise Refusal("slow_body", message, status=408, kind="timeout_error") from None


def _idempotency(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > 128 or not key.isascii() or not key.isprintable():
        raise invalid("Idempotency-Key", "Idempotency-Key: expected at most 128 printable ASCII characters.")
    return key


def _allowed(door: GatewayState, caller: ApiCaller) -> list[str]:
    plan, models = caller.plan, door.control.models
    own = sorted(m.id for m in models.values() if m.tenant and plans.allows(plan, caller.tenant.id, m))
    return [m for m in plan.models if plans.knows(caller.tenant.id, models.get(m))] + own


def _model(caller: ApiCaller, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": caller.tenant.organisation}


def _count(door: GatewayState, end: Response) -> None:
    door.metrics.count("sluice_gateway_tokens_total", "input", by=end.input_tokens)
    door.metrics.count("sluice_gateway_tokens_total", "output", by=end.output_tokens)
