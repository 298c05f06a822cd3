"""A broker that closes a connection under a writer breaks that connection alone, also on the loop of stages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from aiokafka import conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ApiVersionRequest

import pipeline.kafka.clients  # noqa: F401 - puts the connections in place
from pipeline.kafka.connections import BrokerConnection


def test_every_client_gets_such_connections() -> None:
    assert conn.AIOKafkaConnection is BrokerConnection


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_request_on_a_closed_transport_is_a_broken_connection(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scene() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = conn.AIOKafkaConnection("127.0.0.1", port)
        connection._reader, connection._writer = await asyncio.open_connection("127.0.0.1", port)
        connection._versions = {18: (0, 0)}
        connection._read_task = asyncio.create_task(asyncio.sleep(0))
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)
        try:
            answer = connection.send(ApiVersionRequest())
        except KafkaConnectionError:
            assert not connection.connected()
        else:
            # asyncio's own loop drops the bytes; the time-out of the request finds out
            assert run is asyncio.run
            answer.close()
        connection.close()
        server.close()

    run(scene())
