"""Connections at the HTTP port are bounded, in all and by address; those that ask for nothing give way."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
from typing import Any

import pytest
import uvloop

from pipeline.events.control import Control
from pipeline.gateway import connections
from pipeline.gateway.auth import Authenticator, bearer
from pipeline.gateway.wrong_keys import BURST, WrongKeys
from tests.patience import looks
from tests.unit.pipeline.gateway.listening_gateway import BODY, FIT, HEAD, StateWithoutBroker, listening, told

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


def test_beyond_loopback_the_port_of_callers_tells_no_metrics() -> None:
    async def job() -> None:
        async with asyncio.timeout(20), listening() as (port, state):
            assert b"sluice_ready" in await told(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            state.settings = dataclasses.replace(state.settings, host="0.0.0.0")
            found = await told(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 404 " in found.split(b"\r\n")[0]
            assert b"sluice_ready" not in found
            assert b" 200 " in (await told(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")).split(b"\r\n")[0]

    asyncio.run(job())
