"""Bytes at the HTTP port that are no request: a bounded answer in OpenAI's shape, and neither log nor answer quotes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from aiohttp import web

from pipeline.events.control import Control, Plan, Principal, Tenant
from pipeline.gateway import connections
from pipeline.gateway.auth import ApiCaller, Authenticator, bearer
from pipeline.gateway.connections import Connection
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.middleware import count_answers, set_server_name
from pipeline.gateway.open_connections import OpenConnections
from pipeline.gateway.refusals import because
from pipeline.gateway.routes import ROUTES
from pipeline.gateway.settings import GatewaySettings
from pipeline.gateway.state import STATE
from pipeline.gateway.wrong_keys import BURST, WrongKeys
from tests.patience import looks

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


def play(raw: bytes) -> tuple[int, dict[str, str], bytes, list[str]]:
    """Status, error, everything that came, and the refusals counted."""

    async def job() -> tuple[bytes, list[str]]:
        async with asyncio.timeout(20), listening() as (port, state):
            found = await told(port, raw)
            good = await told(port, HEAD + FIT + b"\r\n" + BODY)
            assert b" 503 " in good.split(b"\r\n")[0]
            return found, state.refusals[:-1]

    found, counted = asyncio.run(job())
    last = found[[begun.start() for begun in re.finditer(rb"HTTP/1\.[01] [0-9]{3} ", found)][-1] :]
    return int(last.split()[1]), json.loads(last.partition(b"\r\n\r\n")[2])["error"], found, counted


NO_HTTP = {
    "text": f"{CANARY} hello\r\n\r\n".encode(),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99),
    "a key without its colon": f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {KEY}\r\n\r\n".encode(),
    "a key with a nul": f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\0\r\n\r\n".encode(),
    "line feeds alone": f"GET /v1/models HTTP/1.1\nHost: x\nAuthorization: Bearer {KEY}\n\n".encode(),
    "two lengths": HEAD + FIT + b"Content-Length: 3\r\n\r\n" + BODY,
    "length and chunks": HEAD + FIT + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a chunk that lies": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a strange transfer encoding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY,
    "another version": b"GET /v1/models HTTP/3.7\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_bytes_that_are_no_request_are_answered_and_never_quoted(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status, error, found, counted = play(NO_HTTP[name])
    assert (status, error["code"], error["type"]) == (400, "malformed_http", "invalid_request_error")
    assert 40 < len(error["message"]) < 300
    assert CANARY not in found.decode("latin1") + caplog.text
    assert "Traceback" not in caplog.text
    assert "malformed_http" in counted


def test_a_body_longer_than_its_length_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> bytes:
        async with asyncio.timeout(20), listening() as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD + b"Content-Length: 10\r\n\r\n" + BODY)
            found = await reader.read()
            writer.close()
            return found

    found = asyncio.run(job())
    assert b"invalid_json" in found or b"malformed_http" in found
    assert CANARY not in found.decode() + caplog.text


@pytest.mark.parametrize(
    "head",
    [b"X: " + b"a" * 9000 + b"\r\n", f"Authorization: {KEY}".encode() + b"a" * 9000 + b"\r\n", b"X: 1\r\n" * 200],
    ids=["long", "long key", "many"],
)
def test_headers_without_end_are_told_their_bounds(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    status, error, found, _ = play(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    assert (status, error["code"]) == (431, "headers_too_large")
    assert CANARY not in found.decode() + caplog.text


@pytest.mark.parametrize(
    ("encoding", "body"),
    [(b"gzip", BODY), (b"deflate", BODY), (b"br", BODY), (b"zstd", BODY), (b"foo", BODY), (b"gzip", b"\x1f\x8b\x08")],
)
def test_a_body_that_is_not_encoded_as_it_says(encoding: bytes, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    length = b"Content-Length: %d\r\n" % len(body)
    status, error, found, _ = play(HEAD + b"Content-Encoding: " + encoding + b"\r\n" + length + b"\r\n" + body)
    assert (status, error["code"]) in ((415, "invalid_encoding"), (400, "invalid_json"))
    assert CANARY not in found.decode() + caplog.text
    assert "Traceback" not in caplog.text


def test_a_body_that_is_encoded_as_it_says_is_read() -> None:
    body = zlib.compress(BODY)
    length = b"Content-Length: %d\r\n" % len(body)
    assert play(HEAD + b"Content-Encoding: deflate\r\n" + length + b"\r\n" + body)[0] == 503


@pytest.mark.parametrize(
    ("line", "status", "code", "said"),
    [
        ("GET /v1/chat/completions", 405, "method_not_allowed", "expected POST"),
        ("OPTIONS /v1/models", 405, "method_not_allowed", "expected GET, HEAD"),
        ("POST /v1/completions", 404, "not_found", "POST /v1/chat/completions"),
        ("POST /v1/embeddings", 404, "not_found", "GET /v1/models/{model}"),
        (f"GET /{CANARY}", 404, "not_found", "POST /inference"),
    ],
)
def test_what_is_not_served_is_told_with_what_is(line: str, status: int, code: str, said: str) -> None:
    found = play(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    assert (found[0], found[1]["code"]) == (status, code)
    assert said in found[1]["message"]
    assert CANARY.encode() not in found[2]
    assert b"Server: sluice\r\n" in found[2]
    assert (b"\r\nAllow: " in found[2]) == (status == 405)


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        (HEAD + b"Expect: 100-continue\r\n", [100, 503]),
        (HEAD.replace(CANARY.encode(), b"x") + b"Expect: 100-continue\r\n", [401]),
        (HEAD + b"Expect: cookies\r\n", [417]),
    ],
    ids=["a go-ahead", "no go-ahead for a wrong key", "something else"],
)
def test_expectations(head: bytes, statuses: list[int]) -> None:
    _, _, found, _ = play(head + FIT + b"\r\n" + BODY)
    assert [int(part[:3]) for part in found.decode().split("HTTP/1.1 ")[1:]] == statuses


HALF = HEAD + FIT + b"\r\n" + BODY[:5]
"""A request whose body does not come: its connection is in use."""
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


async def opened(port: int, count: int, sent: bytes = b"", address: str = "127.0.0.1") -> list[socket.socket]:
    """So many connections from an address of loopback, each of which has sent so much."""
    found = []
    for _ in range(count):
        own = socket.socket()
        own.bind((address, 0))
        own.setblocking(False)
        await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
        if sent:
            await asyncio.get_running_loop().sock_sendall(own, sent)
        found.append(own)
    return found


def closed(own: socket.socket) -> bool:
    try:
        return own.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


async def until(state: StateWithoutBroker, count: int) -> None:
    for _ in looks():
        if state.connections == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{state.connections} connections, expected {count}")


BOTH = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@BOTH
def test_connections_beyond_the_bound_are_told_to_come_back(run: Any) -> None:
    async def job() -> None:
        async with asyncio.timeout(20), listening(most=3) as (port, state):
            held = await opened(port, 3, HALF)
            await asyncio.sleep(0.05)
            refused = await told(port, b"")
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in refused
            assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "busy"
            assert state.refusals == ["busy"]
            held.pop().close()
            while b" 401 " not in await told(port, MODELS):
                pass
            assert not any(map(closed, held))
            for own in held:
                own.close()

    run(job())


@BOTH
def test_a_flood_of_idle_connections_keeps_nobody_out(run: Any) -> None:
    """Thousands from a few addresses, silent or in the middle of a header, against a few honest ones."""

    async def job() -> None:
        async with asyncio.timeout(60), listening(most=1000, per_address=400) as (port, state):
            honest = await opened(port, 5, MODELS)
            busy = await opened(port, 3, HALF)
            await until(state, 8)
            flood = []
            for turn in range(4):
                for host in range(2, 6):
                    flood += await opened(port, 200, b"GET / HT" if turn % 2 else b"", f"127.0.0.{host}")
                    assert b" 401 " in await told(port, MODELS)
                    assert state.connections <= 1000
            assert "busy" not in state.refusals
            assert state.reaped > len(flood) - 1000
            # the answers to the honest ones lie there, and they are asked again
            for own in honest:
                assert b" 401 " in own.recv(1 << 16)
                await asyncio.get_running_loop().sock_sendall(own, MODELS)
                assert b" 401 " in await asyncio.get_running_loop().sock_recv(own, 1 << 16)
            assert not any(map(closed, busy))
            for own in (*honest, *busy, *flood):
                own.close()
            await until(state, 0)

    run(job())


@BOTH
def test_an_address_that_uses_all_it_may_have_leaves_room_for_others(run: Any) -> None:
    async def job() -> None:
        async with asyncio.timeout(20), listening(most=20, per_address=5) as (port, state):
            held = await opened(port, 5, HALF, "127.0.0.2")
            await until(state, 5)
            (sixth,) = await opened(port, 1, address="127.0.0.2")
            refused = await asyncio.get_running_loop().sock_recv(sixth, 4096)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b" 401 " in await told(port, MODELS)
            for own in (*held, sixth):
                own.close()

    run(job())


@BOTH
def test_the_connection_that_waits_longest_goes_first(run: Any) -> None:
    async def job() -> None:
        async with asyncio.timeout(20), listening(most=3) as (port, state):
            first, second, third = [(await opened(port, 1))[0] for _ in range(3)]
            await until(state, 3)
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0.02)
            # an answer makes the first the youngest
            await loop.sock_sendall(first, MODELS)
            assert b" 401 " in await loop.sock_recv(first, 1 << 16)
            (fourth,) = await opened(port, 1)
            assert await loop.sock_recv(second, 1) == b""
            assert [closed(own) for own in (first, third, fourth)] == [False, False, False]
            for own in (first, second, third, fourth):
                own.close()

    run(job())


def test_wrong_keys_in_a_row_are_told_to_wait_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def caught_up() -> bool:
        return True

    async def job() -> None:
        async with asyncio.timeout(60), listening() as (port, state):
            keys = WrongKeys(state.metrics)
            check = Authenticator(Control(), None, caught_up, keys)  # type: ignore[arg-type]
            monkeypatch.setattr(state, "authenticate", check.caller)
            wrong = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer('k', bytes(32))}\r\n\r\n"
            answers = [await told(port, wrong.encode()) for _ in range(60)]
            statuses = [int(answer.split()[1]) for answer in answers]
            assert set(statuses[:BURST]) == {401}
            # a slow machine is forgiven one now and then
            assert statuses[-1] == 429
            error = json.loads(answers[-1].partition(b"\r\n\r\n")[2])["error"]
            assert (error["code"], error["type"]) == ("too_many_wrong_keys", "rate_limit_error")
            assert b"\r\nRetry-After: " in answers[-1]
            codes = {401: "unknown_key", 429: "too_many_wrong_keys"}
            assert state.refusals == [codes[status] for status in statuses]
            assert [(report.address, report.times) for report in keys.reports()] == [("127.0.0.1", 60)]
            (other,) = await opened(port, 1, wrong.encode(), "127.0.0.9")
            assert b" 401 " in await asyncio.get_running_loop().sock_recv(other, 1 << 16)
            other.close()

    asyncio.run(job())


@pytest.mark.parametrize("begun", [b"", b"GET /v1/models HTTP/1.1\r\nHo"], ids=["silent", "in the middle of a header"])
def test_a_connection_that_sends_no_request_is_closed(begun: bytes) -> None:
    async def job() -> bytes:
        async with asyncio.timeout(20), listening(idle_s=0.1) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            found = await reader.read()
            writer.close()
            return found

    assert asyncio.run(job()) == b""


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_peer_that_reads_nothing_is_left_to_the_kernel(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_MS", 500)

    async def job() -> None:
        async with asyncio.timeout(30), listening() as (port, _):
            own = socket.create_connection(("127.0.0.1", port))
            own.setblocking(False)
            # answers pile up, unread, until the server can send no more; then nothing is taken from us either
            with contextlib.suppress(ConnectionError):
                while True:
                    await asyncio.get_running_loop().sock_sendall(own, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 99)
            own.close()
            assert b" 401 " in await told(port, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")

    run(job())
