"""Reads partitions of ``responses`` from their end, by assignment, and starts again when the broker goes away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Malformed, Retryable, Stopped
from pipeline.events.codec import decode
from pipeline.events.messages import Response
from pipeline.gateway.metrics import Metrics
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.metrics import MetricSample
from pipeline.retry import retry_forever


class ReplyPartitionReader:
    """One partition of ``responses``. ``ready`` while it reads; what it misses while down is answered by a 504.

    ``learn_keys`` is awaited before responses are delivered, which cannot wait for a key themselves.
    """

    def __init__(
        self,
        kafka: KafkaEndpoint,
        partition: int,
        deliver: Callable[[Response], None],
        metrics: Metrics,
        learn_keys: Callable[[Sequence[Response]], Awaitable[None]],
    ) -> None:
        self.partition = partition
        self.ready = False
        self._kafka = kafka
        self._deliver = deliver
        self._learn_keys = learn_keys
        self._metrics = metrics
        self._reader: PartitionReader | None = None
        self._position: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Stand at the end of the log when this returns. Raises Retryable."""
        await self._open()
        self._task = asyncio.create_task(self._run())

    def lag(self) -> list[MetricSample]:
        """Tell how far reading is behind; nothing while it is down."""
        return [] if self._reader is None else self._reader.lag()

    async def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Stopped):
                await self._task
        await self._shut()

    async def _run(self) -> None:
        while True:
            await retry_forever(self._poll_once, self._closing, f"records of responses[{self.partition}]")
            await asyncio.sleep(0)

    async def _poll_once(self) -> None:
        try:
            if self._reader is None:
                await self._open()
                self._metrics.count("sluice_gateway_reader_restarts_total")
            assert self._reader is not None
            records = await self._reader.poll(2000)
            responses = list(self._decoded(records))
            # raises where control cannot be read: then these are read again
            await self._learn_keys(responses)
            self._position = self._reader.position
            for response in responses:
                self._deliver(response)
        except (Retryable, Fatal, OSError) as error:
            # retention may have cut the log: responses are worth nothing later, so go on from its end
            if isinstance(error, Fatal):
                self._position = None
            await self._shut()
            raise Retryable(str(error)) from error

    async def _open(self) -> None:
        reader = PartitionReader(self._kafka, "responses", self.partition)
        try:
            await reader.start(self._position)
        except BaseException as error:
            await reader.close()
            if isinstance(error, Fatal | Retryable) or not isinstance(error, Exception):
                raise
            raise Retryable(f"responses[{self.partition}]: expected to read it, got {type(error).__name__}") from error
        self._reader = reader
        self._position = reader.position
        self.ready = True

    async def _shut(self) -> None:
        self.ready = False
        reader = self._reader
        self._reader = None
        if reader is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(reader.close(), 5)

    def _decoded(self, records: Sequence[KafkaRecord]) -> Iterator[Response]:
        for record in records:
            try:
                response = decode(Response, record.value)
            except Malformed:
                self._metrics.count("sluice_gateway_responses_total", "malformed")
                continue
            self._metrics.count("sluice_gateway_responses_total", response.event)
            yield response
