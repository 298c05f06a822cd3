"""Records on their way out: gathered while the batch before them is under way, sent until acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pipeline.errors import Malformed, Retryable
from pipeline.events.emission import Emission
from pipeline.kafka.writer import Publisher

_log = logging.getLogger(__name__)
_PAUSE_S = 0.5
_WAITING = 10_000
Late = Callable[[], Emission | None]
"""Makes a record when its batch leaves, of all that has gathered by then; None where nothing is left to say."""


class Sender:
    """One sender; order within a partition is the order of ``put``."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: list[tuple[Emission | Late, asyncio.Future[None] | None]] = []
        self._filled = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._sender = asyncio.create_task(self._run())

    def put(self, emission: Emission) -> None:
        """Send sometime soon."""
        self._waiting.append((emission, None))
        self._filled.set()

    def put_late(self, make: Late) -> None:
        """Send sometime soon what ``make`` gives then."""
        self._waiting.append((make, None))
        self._filled.set()

    async def written(self, emission: Emission) -> None:
        """Send and wait for the acknowledgement."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((emission, future))
        self._filled.set()
        await future

    async def close(self) -> None:
        """Send what waits, then stop, and the publisher with it."""
        while self._waiting and self._sender is not None and not self._sender.done():  # noqa: ASYNC110 - only once, at the end
            await asyncio.sleep(0.01)
        if self._sender is not None:
            self._sender.cancel()
        await self._publisher.close()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch, self._waiting = self._waiting[:_WAITING], self._waiting[_WAITING:]
            if self._waiting:
                self._filled.set()
            await self._send([made for waiting, _ in batch if (made := _made(waiting)) is not None])
            for _, future in batch:
                if future is not None and not future.done():
                    future.set_result(None)

    async def _send(self, batch: list[Emission]) -> None:
        while batch:
            try:
                await self._publisher.send_all([(*emission, ()) for emission in batch])
                return
            except Retryable as error:
                _log.warning("%d records not acknowledged, again: %s", len(batch), error)
                await asyncio.sleep(_PAUSE_S)


def _made(waiting: Emission | Late) -> Emission | None:
    if isinstance(waiting, Emission):
        return waiting
    try:
        return waiting()
    except Malformed as error:
        # its tenant is gone from control: nobody can read it any more
        _log.error("a record could not be made: %s", error)
        return None
