"""A gateway that listens on loopback without a broker, and clients that send it bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from pipeline.events.control import Control, Plan, Principal, Tenant
from pipeline.gateway.auth import ApiCaller
from pipeline.gateway.connections import Connection
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.middleware import count_answers, set_server_name
from pipeline.gateway.open_connections import OpenConnections
from pipeline.gateway.refusals import because
from pipeline.gateway.routes import ROUTES
from pipeline.gateway.settings import GatewaySettings
from pipeline.gateway.state import STATE
from pipeline.process_status import ProcessStatus

CANARY = "canary-7f3a"
KEY = f"sk-sluice-k.{CANARY}"
PLAN = Plan(id="p", models=("glossary",))
TENANT = Tenant(id="t", organisation="o", plan="p", data_key="", hpke_public="", hpke_private="")
CALLER = ApiCaller("k", b"", TENANT, Principal(id="a", tenant="t"), PLAN)
BODY = json.dumps({"model": "glossary", "messages": [{"role": "user", "content": CANARY}]}).encode()
HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
FIT = b"Content-Length: %d\r\n" % len(BODY)


@dataclass
class StateWithoutBroker:
    """The part of the gateway's state that routes use up to the point where a request would be written."""

    settings: GatewaySettings
    metrics: Metrics = field(default_factory=Metrics)
    control: Control = field(default_factory=Control)
    refusals: list[str] = field(default_factory=list)
    status: ProcessStatus = field(default_factory=lambda: ProcessStatus("gateway"))
    connections: int = 0
    reaped: int = 0

    @property
    def access(self) -> StateWithoutBroker:
        return self

    def refused(self, actor: str, tenant: str, code: str) -> None:
        self.refusals.append(code)

    def connections_changed(self, count: int, reaped: int) -> None:
        self.connections, self.reaped = count, self.reaped + reaped

    def claimed_identity(self, header: str | None) -> tuple[str, str]:
        return "unknown", ""

    async def authenticate(self, header: str | None, address: str = "") -> ApiCaller:
        if header != f"Bearer {KEY}":
            raise because("unknown_key")
        return CALLER

    def open(self, caller: ApiCaller, translated: object) -> None:
        raise because("busy")


@contextlib.asynccontextmanager
async def listening(
    most: int = 9, idle_s: float = 60, per_address: int = 1 << 20
) -> AsyncIterator[tuple[int, StateWithoutBroker]]:
    state = StateWithoutBroker(GatewaySettings("", None))  # type: ignore[arg-type]
    app = web.Application(client_max_size=state.settings.bounds.body_bytes, middlewares=[count_answers])
    app[STATE] = state  # type: ignore[misc]
    app.add_routes(ROUTES)
    app.on_response_prepare.append(set_server_name)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    server, loop = runner.server, asyncio.get_running_loop()
    assert server is not None
    opened = OpenConnections(most, per_address, state.connections_changed)
    port = await loop.create_server(
        lambda: Connection(server, loop, opened, lambda code: state.refused("unknown", "", code), idle_s),
        "127.0.0.1",
        0,
        backlog=1024,
    )
    try:
        yield port.sockets[0].getsockname()[1], state
    finally:
        port.close()
        await runner.cleanup()


async def told(port: int, raw: bytes) -> bytes:
    """All that comes back until the server closes or has answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    found = b""
    with contextlib.suppress(ConnectionError):
        head = found = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
            found += head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found += await reader.readexactly(length)
    writer.close()
    return found
