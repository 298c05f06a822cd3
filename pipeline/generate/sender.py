"""Records on their way out: gathered while the batch before them is under way, sent until acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pipeline.errors import Malformed, Stopped
from pipeline.events.emission import Emission
from pipeline.kafka.writer import Publisher
from pipeline.retry import retry_forever

_log = logging.getLogger(__name__)
_WAITING = 10_000
Late = Callable[[], Emission | None]
"""Makes a record when its batch leaves, of all that has gathered by then; None where nothing is left to say."""


class Sender:
    """One sender; order within a partition is the order of ``put``."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: list[tuple[Emission | Late, asyncio.Future[None] | None]] = []
        self._filled = asyncio.Event()
        self._closing = asyncio.Event()
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
        """Send what waits, unless the broker is away, and close the publisher."""
        self._closing.set()
        self._filled.set()
        if self._sender is not None:
            try:
                await self._sender
            except Stopped as error:
                _log.warning("%d records are not sent: %s", len(self._waiting), error)
        await self._publisher.close()

    async def _run(self) -> None:
        while self._waiting or not self._closing.is_set():
            await self._filled.wait()
            self._filled.clear()
            batch, self._waiting = self._waiting[:_WAITING], self._waiting[_WAITING:]
            if self._waiting:
                self._filled.set()
            made = [(emission, future) for waiting, future in batch if (emission := _made(waiting)) is not None]
            try:
                await self._send(made)
            except Stopped:
                raise
            except Exception:
                # one that no batch holds takes neither the others along nor what comes behind; repeats are harmless
                for emission, future in made:
                    await self._send_alone(emission, future)

    async def _send(self, made: list[tuple[Emission, asyncio.Future[None] | None]]) -> None:
        records = [(*emission, ()) for emission, _ in made]
        if records:
            what = f"{len(records)} records to be acknowledged"
            await retry_forever(lambda: self._publisher.send_all(records), self._closing, what)
        for _, future in made:
            if future is not None and not future.done():
                future.set_result(None)

    async def _send_alone(self, emission: Emission, future: asyncio.Future[None] | None) -> None:
        try:
            await self._send([(emission, future)])
        except Stopped:
            raise
        except Exception as error:
            _log.error("a record of %s is not sent: %s", emission.topic, error)
            if future is not None and not future.done():
                future.set_exception(error)


def _made(waiting: Emission | Late) -> Emission | None:
    if isinstance(waiting, Emission):
        return waiting
    try:
        return waiting()
    except Malformed as error:
        # its tenant is gone from control: no key opens it any more
        _log.error("a record could not be made: %s", error)
        return None
