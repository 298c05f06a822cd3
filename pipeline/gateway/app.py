"""The gateway as one aiohttp application, and its process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from pipeline.control.checked_prefix import checked_prefix
from pipeline.control.table import ControlTable
from pipeline.errors import ConfigError
from pipeline.gateway.certificate import HANDSHAKE_S
from pipeline.gateway.connections import Connection, connection_limit
from pipeline.gateway.middleware import count_answers, set_server_name
from pipeline.gateway.open_connections import OpenConnections
from pipeline.gateway.routes import ROUTES
from pipeline.gateway.settings import GatewaySettings
from pipeline.gateway.state import STATE, GatewayState
from pipeline.keys.vault import FileKeyring, Kms, Vault
from pipeline.process_status import ProcessStatus

log = logging.getLogger(__name__)


def build_app(
    settings: GatewaySettings, control_table: ControlTable, vault: Vault, status: ProcessStatus | None = None
) -> web.Application:
    """Make the application; ``control_table`` has been started.

    Raises ConfigError where control or the reply partition do not fit.
    """
    state = GatewayState(settings, control_table, vault)
    state.tell(status or ProcessStatus("gateway"))
    app = web.Application(client_max_size=settings.bounds.body_bytes, middlewares=[count_answers])
    app[STATE] = state
    app.add_routes(ROUTES)
    app.on_response_prepare.append(set_server_name)
    app.cleanup_ctx.append(_lifetime(state, control_table))
    return app


async def run(
    settings: GatewaySettings, stop: asyncio.Event, kms: Kms | None = None, status: ProcessStatus | None = None
) -> None:
    """Serve until ``stop`` is set, then take no more connections and let open answers end (``bounds.drain_s``)."""
    control_table = ControlTable(settings.kafka, settings.pin, checked_prefix(settings.pin, settings.keyring))
    await control_table.start()
    try:
        vault = Vault(kms or FileKeyring(settings.keyring), control_table.control)
        app = build_app(settings, control_table, vault, status)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=settings.bounds.drain_s)
        await runner.setup()
        try:
            listening = await _listen(settings, runner, app[STATE])
            try:
                log.info(
                    "gateway listens on %s:%d, reply partition %d",
                    settings.host,
                    settings.port,
                    settings.reply_partition,
                )
                if status is not None:
                    status.starting = False
                await stop.wait()
                app[STATE].stopping.set()
            finally:
                listening.close()
        finally:
            await runner.cleanup()
    finally:
        await control_table.close()


async def _listen(settings: GatewaySettings, runner: web.AppRunner, state: GatewayState) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    server, served = runner.server, state.certificate
    limit = connection_limit(settings.bounds.connections)
    connections = OpenConnections(limit, settings.bounds.address_connections, state.connections_changed)
    assert server is not None

    def accept() -> Connection:
        return Connection(server, loop, connections, lambda code: state.access.refused("unknown", "", code))

    try:
        return await loop.create_server(
            accept,
            settings.host,
            settings.port,
            backlog=1024,
            ssl=None if served is None else served.context,
            ssl_handshake_timeout=None if served is None else HANDSHAKE_S,
        )
    except OSError as error:
        raise ConfigError(
            f"gateway.host, gateway.port: expected an address to listen on, got {settings.host}:{settings.port} "
            f"({error.strerror}); stop the program that has it, or set another"
        ) from None


def _lifetime(state: GatewayState, control_table: ControlTable) -> Callable[[web.Application], AsyncIterator[None]]:
    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        try:
            await state.start()
        except BaseException:
            await state.close()
            raise
        stop = asyncio.Event()
        state.following = asyncio.create_task(control_table.follow(stop))
        tasks = [state.following, asyncio.create_task(state.access.follow(stop))]
        if state.certificate is not None:
            tasks.append(asyncio.create_task(state.certificate.follow(stop)))
        yield
        stop.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks, return_exceptions=True)
        await state.close()

    return lifetime
