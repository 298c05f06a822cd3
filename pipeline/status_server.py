"""A stage without an API answers on a port of its own: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp import web


@contextlib.asynccontextmanager
async def served_status(
    host: str, port: int, faults: Callable[[], Sequence[str]], render: Callable[[], bytes]
) -> AsyncIterator[None]:
    """Answer on a port while the context lasts; 0 serves nothing. Raises ConfigError where the port is taken."""
    if not port:
        yield
        return
    # a stage whose port is 0 starts without it
    from aiohttp import web

    runner = web.AppRunner(_application(faults, render), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"metrics_host, metrics_port: expected an address to listen on, got {host}:{port} ({error.strerror}); "
                "stop the program that has it, or set another"
            ) from None
        yield
    finally:
        await runner.cleanup()


def _application(faults: Callable[[], Sequence[str]], render: Callable[[], bytes]) -> web.Application:
    from aiohttp import web

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        found = list(faults())
        return web.json_response({"ready": not found, "faults": found}, status=503 if found else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app
