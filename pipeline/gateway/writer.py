"""Signed records into ``requests``, many in flight, in the order of their counters."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable, Stopped
from pipeline.events import wire
from pipeline.gateway.auth import ApiCaller
from pipeline.gateway.refusals import because
from pipeline.kafka.clients import REQUEST_TIMEOUT_MS, make_producer
from pipeline.kafka.shutdown import STOP_S, stop_producer
from pipeline.retry import retry_forever
from pipeline.topics import partition_of


class RequestWriter:
    """One idempotent producer; a write whose result is unknown drops it, as its sequence numbers may be used up."""

    def __init__(self, kafka: KafkaEndpoint, partitions: int, timeout_ms: int) -> None:
        self._kafka = kafka
        self._partitions = partitions
        self._timeout_s = timeout_ms / 1000
        self._producer: AIOKafkaProducer | None = None
        self._session = uuid.uuid4().hex
        self._counters: dict[str, int] = {}
        self._order = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self._closing = asyncio.Event()
        self._dropped: set[asyncio.Task[None]] = set()
        self._recovery: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """True while there is a producer to write with."""
        return self._producer is not None

    async def start(self) -> None:
        """Connect. Raises ConfigError where the broker's partition count is not the deployment's."""
        try:
            producer = await self._connected()
            partitions = len(await producer.partitions_for("requests"))
        except KafkaError as error:
            raise Retryable(
                f"no Kafka broker answered at {self._kafka.bootstrap} ({type(error).__name__}); "
                "start it, or set kafka.bootstrap"
            ) from error
        if partitions != self._partitions:
            raise ConfigError(
                f"topic requests: expected {self._partitions} partitions as control says, got {partitions}; "
                "see: sluice topics check"
            )

    async def send(
        self, caller: ApiCaller, client_request: str, kind: str, value: bytes, reply_partition: int
    ) -> tuple[int, int]:
        """Sign and write one record; gives (partition, offset), offset -1 where only its being there is known.

        Raises Retryable where the result is unknown, Refusal where the record is too large.
        """
        organisation = caller.tenant.organisation.encode()
        partition = partition_of(organisation, self._partitions)
        producer = self._producer
        try:
            async with asyncio.timeout(self._timeout_s):
                # admit refuses counters that arrive far out of order, so count, sign and enqueue are one step
                async with self._order:
                    producer = await self._connected()
                    written = await producer.send(
                        "requests",
                        value=value,
                        key=organisation,
                        partition=partition,
                        headers=self._signed(caller, client_request, kind, value, reply_partition),
                    )
                sent = await asyncio.shield(written)
        except MessageSizeTooLargeError:
            raise because("input_too_long") from None
        except (KafkaError, TimeoutError) as error:
            self._drop(producer)
            raise Retryable(
                f"requests[{partition}]: expected the broker to confirm the write, got {type(error).__name__}"
            ) from error
        return partition, sent.offset

    async def send_plain(self, topic: str, key: str, value: bytes) -> None:
        """Write one unsigned record, placed by its key. Raises Retryable."""
        raw = key.encode()
        producer = self._producer
        try:
            async with asyncio.timeout(self._timeout_s):
                producer = await self._connected()
                await producer.send_and_wait(topic, value, key=raw, partition=partition_of(raw, self._partitions))
        except (KafkaError, TimeoutError) as error:
            self._drop(producer)
            raise Retryable(f"{topic}: expected the broker to confirm the write, got {type(error).__name__}") from error

    async def close(self) -> None:
        """Stop the producer and those left behind."""
        self._closing.set()
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        producer = self._producer
        self._producer = None
        if producer is not None:
            await stop_producer(producer)
        if self._dropped:
            await asyncio.wait(self._dropped, timeout=2 * STOP_S)

    def _signed(
        self, caller: ApiCaller, client_request: str, kind: str, value: bytes, reply_partition: int
    ) -> list[tuple[str, bytes]]:
        counter = self._counters[caller.key] = self._counters.get(caller.key, 0) + 1
        return wire.sign(
            caller.secret,
            caller.key,
            client_request,
            kind,
            value,
            time=now_ms(),
            session=self._session,
            counter=counter,
            lane=reply_partition,
        )

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = make_producer(self._kafka, max_batch_size=1024 * 1024, request_timeout_ms=REQUEST_TIMEOUT_MS)
                try:
                    await producer.start()
                except BaseException:
                    await stop_producer(producer)
                    raise
                self._producer = producer
            return self._producer

    def _drop(self, broken: AIOKafkaProducer | None) -> None:
        """Leave ``broken`` behind, unless another caller has done so already, and connect again."""
        if broken is None or broken is not self._producer:
            return
        self._producer = None
        task = asyncio.create_task(stop_producer(broken))
        self._dropped.add(task)
        task.add_done_callback(self._dropped.discard)
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        """Connect again; no request would, as the gateway takes none while ``up`` is false."""

        async def connect() -> None:
            try:
                await self._connected()
            except (KafkaError, TimeoutError, OSError) as error:
                raise Retryable(type(error).__name__) from error

        with contextlib.suppress(Stopped):
            await retry_forever(connect, self._closing, f"the Kafka broker at {self._kafka.bootstrap}")
