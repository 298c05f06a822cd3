"""The gateway as one aiohttp application, and its process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import uvloop
from aiohttp import web

from pipeline.adapters.control_feed import ControlFeed
from pipeline.adapters.gateway import routes
from pipeline.adapters.gateway.door import Door
from pipeline.adapters.gateway.refusals import Refusal
from pipeline.adapters.gateway.settings import GatewaySettings
from pipeline.vault import FileKeyring, Kms, Vault

log = logging.getLogger(__name__)
Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES = (
    web.post("/v1/chat/completions", routes.chat_completions),
    web.post("/inference", routes.inference),
    web.get("/v1/models", routes.models),
    web.get("/v1/models/{model:.+}", routes.model),
    web.get("/v1/requests/{id}", routes.held_request),
    web.get("/v1/wire", routes.wire),
    web.get("/healthz", routes.healthz),
    web.get("/readyz", routes.readyz),
    web.get("/metrics", routes.metrics),
)


def build_app(settings: GatewaySettings, feed: ControlFeed, vault: Vault) -> web.Application:
    """The application. ``feed`` has been started. Raises ConfigError where control or the lane do not fit."""
    door = Door(settings, feed, vault)
    app = web.Application(client_max_size=settings.bounds.body_bytes, middlewares=[_answered])
    app[routes.DOOR] = door
    app.add_routes(ROUTES)
    app.cleanup_ctx.append(_lifetime(door, feed))
    return app


async def run(settings: GatewaySettings, stop: asyncio.Event, kms: Kms | None = None) -> None:
    """Serve until ``stop`` is set, then take no more connections and let open answers end (``bounds.drain_s``)."""
    feed = ControlFeed(settings.bootstrap)
    await feed.start()
    try:
        vault = Vault(kms or FileKeyring(settings.keyring), feed.control)
        app = build_app(settings, feed, vault)
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=settings.bounds.drain_s
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            log.info("gateway listens on %s:%d, lane %d", settings.host, settings.port, settings.lane)
            await stop.wait()
            app[routes.DOOR].stopping.set()
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


def _lifetime(door: Door, feed: ControlFeed) -> Callable[[web.Application], AsyncIterator[None]]:
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


async def _shaped(request: web.Request, handler: Handling, door: Door) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Refusal as refusal:
        if refusal.local:
            door.access.refused(*door.claimed(request.headers.get("Authorization")), refusal.code)
        return _refused(request, refusal)
    except web.HTTPException as error:
        code = "not_found" if error.status == 404 else "http_error"
        message = f"{error.reason}: {request.method} is not served at this path."
        return _refused(request, Refusal(code, message, status=error.status))
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        # the text of an unexpected error may quote its input, so only its type and place are told
        place = "".join(traceback.format_tb(error.__traceback__)[-3:])
        log.error("unexpected %s\n%s", type(error).__name__, place)
        failed = Refusal("internal", "The gateway failed on this request.", status=500, kind="api_error")
        return _refused(request, failed)
    if not response.prepared:
        response.headers.update(request.get(routes.ANSWER_HEADERS, {}))
    return response


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    headers = {**request.get(routes.ANSWER_HEADERS, {}), **refusal.headers}
    return web.Response(body=refusal.body(), status=refusal.status, content_type="application/json", headers=headers)
