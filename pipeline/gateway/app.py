"""The gateway as one aiohttp application, and its process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import uvloop
from aiohttp import HttpVersion11, web

from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError
from pipeline.gateway import routes
from pipeline.gateway.connections import SERVER, Connection, answer, ceiling, unexpected
from pipeline.gateway.refusals import Refusal
from pipeline.gateway.settings import GatewaySettings
from pipeline.gateway.state import GatewayState
from pipeline.keys.vault import FileKeyring, Kms, Vault

log = logging.getLogger(__name__)
_PATTERN = re.compile(r":[^}]*}")
Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(settings: GatewaySettings, feed: ControlTable, vault: Vault) -> web.Application:
    """The application. ``feed`` has been started. Raises ConfigError where control or the lane do not fit."""
    door = GatewayState(settings, feed, vault)
    app = web.Application(client_max_size=settings.bounds.body_bytes, middlewares=[_answered])
    app[routes.DOOR] = door
    app.add_routes(ROUTES)
    app.on_response_prepare.append(_named)
    app.cleanup_ctx.append(_lifetime(door, feed))
    return app


async def run(settings: GatewaySettings, stop: asyncio.Event, kms: Kms | None = None) -> None:
    """Serve until ``stop`` is set, then take no more connections and let open answers end (``bounds.drain_s``)."""
    feed = ControlTable(settings.bootstrap)
    await feed.start()
    try:
        vault = Vault(kms or FileKeyring(settings.keyring), feed.control)
        app = build_app(settings, feed, vault)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=settings.bounds.drain_s)
        await runner.setup()
        try:
            listening = await _listen(settings, runner, app[routes.DOOR])
            try:
                log.info("gateway listens on %s:%d, lane %d", settings.host, settings.port, settings.lane)
                await stop.wait()
                app[routes.DOOR].stopping.set()
            finally:
                listening.close()
        finally:
            await runner.cleanup()
    finally:
        await feed.close()


def serve(settings: GatewaySettings) -> None:
    """A process of its own on uvloop; SIGTERM and SIGINT stop it in order."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await run(settings, stop)

    uvloop.run(main())


async def _listen(settings: GatewaySettings, runner: web.AppRunner, door: GatewayState) -> asyncio.Server:
    loop, server, most = asyncio.get_running_loop(), runner.server, ceiling(settings.bounds.connections)
    assert server is not None

    def accepted() -> Connection:
        return Connection(server, loop, most, lambda code: door.access.refused("unknown", "", code))

    try:
        return await loop.create_server(accepted, settings.host, settings.port, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"the gateway cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
            "set gateway.host, gateway.port"
        ) from None


def _lifetime(door: GatewayState, feed: ControlTable) -> Callable[[web.Application], AsyncIterator[None]]:
    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        try:
            await door.start()
        except BaseException:
            await door.close()
            raise
        stop = asyncio.Event()
        door.following = asyncio.create_task(feed.follow(stop))
        tasks = [door.following, asyncio.create_task(door.access.follow(stop))]
        yield
        stop.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks, return_exceptions=True)
        await door.close()

    return lifetime


@web.middleware
async def _answered(request: web.Request, handler: Handling) -> web.StreamResponse:
    """Every answer is counted; every fault has OpenAI's shape."""
    request[routes.ARRIVED] = time.monotonic()
    door = request.app[routes.DOOR]
    status = 499
    try:
        response = await _shaped(request, handler, door)
        status = response.status
        return response
    finally:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "other"
        door.metrics.count("sluice_gateway_requests_total", route, str(status))
        door.metrics.took("sluice_gateway_request_seconds", time.monotonic() - request[routes.ARRIVED], route)


async def _shaped(request: web.Request, handler: Handling, door: GatewayState) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Refusal as refusal:
        if refusal.local:
            door.access.refused(*door.claimed(request.headers.get("Authorization")), refusal.code)
        return _refused(request, refusal)
    except web.HTTPException as error:
        return _refused(request, _unserved(error))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        unexpected(error)
        failed = Refusal("internal", "The gateway failed on this request.", status=500, kind="api_error")
        return _refused(request, failed)
    if not response.prepared:
        response.headers.update(request.get(routes.ANSWER_HEADERS, {}))
    return response


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    return answer(refusal, request.get(routes.ANSWER_HEADERS, {}))


def _unserved(error: web.HTTPException) -> Refusal:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"This method is not served at this path: expected {allowed}."
        return Refusal("method_not_allowed", text, status=405, headers={"Allow": allowed})
    if error.status == 404:
        served = ", ".join(f"{route.method} {_PATTERN.sub('}', route.path)}" for route in ROUTES)
        return Refusal("not_found", f"Nothing is served at this path. Served are {served}.", status=404)
    return Refusal("http_error", f"{error.reason}.", status=error.status)


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Expect: a body that waits for a go-ahead is not sent at all where the key is refused."""
    if request.version < HttpVersion11:
        return None
    if request.headers.get("Expect", "").lower() != "100-continue":
        return answer(Refusal("expectation_failed", "Expect: expected 100-continue, or no such header.", status=417))
    try:
        await request.app[routes.DOOR].caller(request.headers.get("Authorization"))
    except Refusal:
        return None
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return None


async def _named(_: web.Request, response: web.StreamResponse) -> None:
    """The library would tell its version and Python's."""
    response.headers["Server"] = SERVER


ROUTES = (
    web.post("/v1/chat/completions", routes.chat_completions, expect_handler=_expected),
    web.post("/inference", routes.inference, expect_handler=_expected),
    web.get("/v1/models", routes.models),
    web.get("/v1/models/{model:.+}", routes.model),
    web.get("/v1/requests/{id}", routes.held_request),
    web.get("/v1/wire", routes.wire),
    web.get("/healthz", routes.healthz),
    web.get("/readyz", routes.readyz),
    web.get("/metrics", routes.metrics),
)
