"""A man in the middle of a real broker: lets produce requests through and cuts the connection before the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

_PRODUCE = 0
Frames = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AckThief:
    """Every ``every``-th produce request that names ``topic`` is answered to nobody; ``stolen`` counts them."""

    def __init__(self, broker: int, topic: str, every: int) -> None:
        self._broker, self._topic, self._every = broker, topic.encode(), every
        self._met = self.stolen = 0
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @contextlib.asynccontextmanager
    async def between(self) -> AsyncIterator[None]:
        """Whatever this event loop connects to the broker goes through here."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        loop: Any = asyncio.get_running_loop()
        straight = loop.create_connection

        async def detour(factory: Any, host: Any = None, port: Any = None, **rest: Any) -> Any:
            return await straight(factory, host, self.port if port == self._broker else port, **rest)

        loop.create_connection = detour
        try:
            yield
        finally:
            loop.create_connection = straight
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop: Any = asyncio.get_running_loop()
        upstream = asyncio.StreamReader(limit=1 << 24)
        protocol = asyncio.StreamReaderProtocol(upstream)
        # the class's own method: the detour would lead back here
        transport, _ = await type(loop).create_connection(loop, lambda: protocol, "127.0.0.1", self._broker)
        onward = asyncio.StreamWriter(transport, protocol, upstream, loop)
        doomed: set[bytes] = set()
        ways = [
            asyncio.create_task(self._requests(reader, onward, doomed)),
            asyncio.create_task(self._answers(upstream, writer, doomed)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, onward):
            end.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, doomed: set[bytes]) -> None:
        while True:
            frame = await _frame(reader)
            if int.from_bytes(frame[4:6], "big") == _PRODUCE and self._topic in frame[:256]:
                self._met += 1
                if self._met % self._every == 0:
                    doomed.add(frame[8:12])
            onward.write(frame)
            await onward.drain()

    async def _answers(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: set[bytes]) -> None:
        while True:
            frame = await _frame(upstream)
            if frame[4:8] in doomed:
                # the broker has written and answered; the client will never know
                self.stolen += 1
                return
            writer.write(frame)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One message of Kafka's protocol with its length before it; requests: key, version, correlation id."""
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))
