"""Around every route: each answer is counted, and each fault gets OpenAI's error shape."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from pipeline.gateway.connections import SERVER, log_unexpected, refusal_response
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.routes import ROUTES
from pipeline.gateway.state import STATE, GatewayState
from pipeline.gateway.streaming import ANSWER_HEADERS, ARRIVED

_PATTERN = re.compile(r":[^}]*}")
Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def count_answers(request: web.Request, handler: Route) -> web.StreamResponse:
    """Serve one request and count its answer by route and status."""
    request[ARRIVED] = time.monotonic()
    state = request.app[STATE]
    status = 499
    try:
        response = await _shape_faults(request, handler, state)
        status = response.status
        return response
    finally:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "other"
        state.metrics.count("sluice_gateway_requests_total", route, str(status))
        state.metrics.took("sluice_gateway_request_seconds", time.monotonic() - request[ARRIVED], route)


async def set_server_name(_: web.Request, response: web.StreamResponse) -> None:
    """Name the server; the library would tell its version and Python's."""
    response.headers["Server"] = SERVER


async def _shape_faults(request: web.Request, handler: Route, state: GatewayState) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Refusal as refusal:
        if refusal.local:
            state.access.refused(*state.claimed_identity(request.headers.get("Authorization")), refusal.code)
        return _refuse(request, refusal)
    except web.HTTPException as error:
        return _refuse(request, _not_served(error))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        log_unexpected(error)
        failed = Refusal("internal", "The gateway failed on this request.", status=500, kind="api_error")
        return _refuse(request, failed)
    if not response.prepared:
        response.headers.update(request.get(ANSWER_HEADERS, {}))
    return response


def _refuse(request: web.Request, refusal: Refusal) -> web.Response:
    return refusal_response(refusal, request.get(ANSWER_HEADERS, {}))


def _not_served(error: web.HTTPException) -> Refusal:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"This method is not served at this path: expected {allowed}."
        return Refusal("method_not_allowed", text, status=405, headers={"Allow": allowed})
    if error.status == 404:
        served = ", ".join(f"{route.method} {_PATTERN.sub('}', route.path)}" for route in ROUTES)
        return Refusal("not_found", f"Nothing is served at this path. Served are {served}.", status=404)
    return Refusal("http_error", f"{error.reason}.", status=error.status)
