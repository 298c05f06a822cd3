"""The HTTP routes. A route raises Refusal where it does not answer; ``middleware`` gives it OpenAI's error shape."""

from __future__ import annotations

from aiohttp import web

from pipeline.clock import now_ms
from pipeline.events import plans
from pipeline.events.ids import is_request_id
from pipeline.events.limits import limits_over
from pipeline.events.wire import MAX_VALUE_BYTES, SKEW_MS
from pipeline.gateway.answers import ChatShape, SimpleShape, request_status
from pipeline.gateway.auth import ApiCaller
from pipeline.gateway.limits import quota_document
from pipeline.gateway.open_connections import address_of
from pipeline.gateway.reading import answer_expect, idempotency_key, read_body
from pipeline.gateway.refusals import Refusal, because, invalid
from pipeline.gateway.state import STATE, GatewayState
from pipeline.gateway.streaming import send_reply
from pipeline.gateway.translate import read_chat, read_simple
from pipeline.sections import is_loopback

_MAX_WAIT_MS = 60_000


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Serve ``POST /v1/chat/completions``."""
    state, caller = await _authenticate(request)
    translated = read_chat(await read_body(request), state.control, caller.plan, idempotency_key(request))
    async with state.open(caller, translated) as pending:
        shape = ChatShape(pending, translated.body.model, translated.include_usage)
        return await send_reply(request, state, pending, shape, stream=translated.stream)


async def inference(request: web.Request) -> web.StreamResponse:
    """Serve ``POST /inference``."""
    state, caller = await _authenticate(request)
    translated = read_simple(await read_body(request), state.control, caller.plan, idempotency_key(request))
    async with state.open(caller, translated) as pending:
        shape = SimpleShape(pending, translated.body.model)
        return await send_reply(request, state, pending, shape, stream=translated.stream)


async def models(request: web.Request) -> web.Response:
    """List the models that the caller's plan allows."""
    state, caller = await _authenticate(request)
    listed = [_model(caller, name) for name in _allowed_models(state, caller)]
    return web.json_response({"object": "list", "data": listed})


async def model(request: web.Request) -> web.Response:
    """Show one model of the caller's plan."""
    state, caller = await _authenticate(request)
    wanted = request.match_info["model"]
    if wanted not in _allowed_models(state, caller):
        raise because("unknown_model")
    return web.json_response(_model(caller, wanted))


async def request_by_id(request: web.Request) -> web.Response:
    """Tell the outcome of a request of the same principal, or its position in the queue, by either of its ids."""
    state, caller = await _authenticate(request)
    wanted = request.match_info["id"]
    owner = caller.principal.id
    wait = request.query.get("wait_ms", "0")
    if not (wait.isascii() and wait.isdigit() and len(wait) <= 6 and int(wait) <= _MAX_WAIT_MS):
        raise invalid("wait_ms", f"wait_ms: expected 0 to {_MAX_WAIT_MS}.")
    if not (wanted.startswith(f"{owner}:") or is_request_id(state.control.generation, wanted)):
        # ids of other principals of the same tenant read as absent, whether they exist or not
        raise because("no_such_request", message="No request of this principal has that id.")
    key = (caller.tenant.id, wanted)
    responses = state.responses
    with state.calls.waiting(caller.tenant.id):
        reply = await responses.cache.wait_reply(key, state.opener(caller.tenant.id), int(wait) / 1000, owner)
    fault = reply.fault() if reply else None
    if fault is not None:
        raise fault
    client_request = responses.cache.client_request(key) if reply else wanted
    status = request_status(client_request, reply, responses.queue_position(key))
    return web.json_response(status, status=202 if status["result"] == "open" else 200)


async def quota(request: web.Request) -> web.Response:
    """List the limits over the calling key with the newest values that answers told."""
    state, caller = await _authenticate(request)
    limits = limits_over(state.control, caller.tenant, caller.principal.id, caller.key)
    return web.json_response(quota_document(limits, state.responses.limits))


async def wire(request: web.Request) -> web.Response:
    """Tell a direct producer how to write its own records; see WIRE.md beside the producer."""
    state, caller = await _authenticate(request)
    deployment, security = state.control.require_deployment(), state.settings.kafka.security
    key = state.control.keys.get(caller.key)
    document = {
        "version": 1,
        "generation": deployment.generation,
        "bootstrap": state.settings.advertised_bootstrap or state.settings.kafka.bootstrap,
        "security_protocol": state.settings.advertised_protocol or security.protocol,
        "sasl_mechanism": state.settings.advertised_mechanism or security.mechanism,
        "kafka_user": key.kafka_user if key else "",
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
        "models": _allowed_models(state, caller),
        "max_tokens": caller.plan.max_tokens,
        "max_input_bytes": caller.plan.max_input_bytes,
        "max_value_bytes": MAX_VALUE_BYTES,
        "skew_ms": SKEW_MS,
        "time": now_ms(),
    }
    return web.json_response(document)


async def livez(_: web.Request) -> web.Response:
    """Say that the process runs."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """Say whether this gateway should get traffic, and why not."""
    faults = request.app[STATE].faults()
    return web.json_response({"ready": not faults, "faults": faults}, status=503 if faults else 200)


async def metrics(request: web.Request) -> web.Response:
    """Give Prometheus' text format, where nothing beyond this machine can ask for it."""
    state = request.app[STATE]
    if not is_loopback(state.settings.host):
        raise Refusal("not_found", "Metrics are told on the port of status.port, which asks for a token.", status=404)
    return web.Response(body=state.status.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


ROUTES = (
    web.post("/v1/chat/completions", chat_completions, expect_handler=answer_expect),
    web.post("/inference", inference, expect_handler=answer_expect),
    web.get("/v1/models", models),
    web.get("/v1/models/{model:.+}", model),
    web.get("/v1/requests/{id}", request_by_id),
    web.get("/v1/quota", quota),
    web.get("/v1/wire", wire),
    web.get("/livez", livez),
    web.get("/healthz", livez),
    web.get("/readyz", readyz),
    web.get("/metrics", metrics),
)


async def _authenticate(request: web.Request) -> tuple[GatewayState, ApiCaller]:
    state = request.app[STATE]
    return state, await state.authenticate(request.headers.get("Authorization"), address_of(request.remote))


def _allowed_models(state: GatewayState, caller: ApiCaller) -> list[str]:
    plan = caller.plan
    known = state.control.models
    own = sorted(m.id for m in known.values() if m.tenant and plans.allows(plan, caller.tenant.id, m))
    return [name for name in plan.models if plans.knows(caller.tenant.id, known.get(name))] + own


def _model(caller: ApiCaller, name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": caller.tenant.organisation}
