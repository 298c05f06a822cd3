"""Writing to Kafka by plain aiokafka: whole batches to named partitions, each confirmed or told as unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Retryable
from pipeline.kafka.clients import REQUEST_TIMEOUT_MS, make_producer
from pipeline.kafka.reader import Headers
from pipeline.kafka.shutdown import stop_producer

MAX_BATCH_BYTES = 1900 * 1024
"""Of one record batch: a full step with the largest record on top, below the topics' ``max.message.bytes``."""
_WRITE_S = 2 * REQUEST_TIMEOUT_MS / 1000


def batch_producer(kafka: KafkaEndpoint) -> AIOKafkaProducer:
    """Give a producer that takes the largest batch of any stage."""
    return make_producer(kafka, max_batch_size=MAX_BATCH_BYTES, request_timeout_ms=REQUEST_TIMEOUT_MS)


class Publisher:
    """Sends records whose order and duplicates do not matter to the ledger: actions, requests, documents."""

    def __init__(self, kafka: KafkaEndpoint) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        """Raises Retryable where no broker answers."""
        try:
            await self._connected()
        except KafkaError as error:
            raise Retryable(f"no producer at {self._kafka.bootstrap}: {error!r}") from error

    async def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Headers = ()
    ) -> tuple[int, int]:
        """Write one record and give (partition, offset). Raises Retryable where the result is unknown."""
        return (await self.send_all([(topic, partition, key, value, headers)]))[0]

    async def send_all(self, records: Sequence[tuple[str, int, bytes, bytes, Headers]]) -> list[tuple[int, int]]:
        """Write all, in order within each partition, and wait for every acknowledgement. Raises Retryable."""
        by_target: dict[tuple[str, int], list[int]] = {}
        for index, record in enumerate(records):
            by_target.setdefault(record[:2], []).append(index)
        used: AIOKafkaProducer | None = None
        try:
            used = await self._connected()
            batches = [b for target, indices in by_target.items() for b in await _send(used, target, indices, records)]
            # an idempotent producer tries for ever
            landed = await asyncio.wait_for(asyncio.gather(*(future for future, _ in batches)), _WRITE_S)
        except (KafkaError, TimeoutError) as error:
            # of several callers that meet the fault, the first drops the producer; a fresh one is not theirs to drop
            if used is not None and used is self._producer:
                self._producer = None
                await stop_producer(used)
            raise Retryable(f"could not write {len(records)} records: {error!r}") from error
        sent = [(0, -1)] * len(records)
        for metadata, (_, indices) in zip(landed, batches, strict=True):
            for nth, index in enumerate(indices):
                sent[index] = metadata.partition, metadata.offset + nth if metadata.offset >= 0 else -1
        return sent

    async def close(self) -> None:
        left, self._producer = self._producer, None
        if left is not None:
            await stop_producer(left)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                fresh = batch_producer(self._kafka)
                try:
                    await fresh.start()
                except BaseException:
                    await stop_producer(fresh)
                    raise
                self._producer = fresh
            return self._producer


async def _send(
    used: AIOKafkaProducer,
    target: tuple[str, int],
    indices: Sequence[int],
    records: Sequence[tuple[str, int, bytes, bytes, Headers]],
) -> list[tuple[Awaitable[RecordMetadata], list[int]]]:
    """Hand the records of one partition over as whole batches: a future for each record costs more than it."""
    batches: list[tuple[Awaitable[RecordMetadata], list[int]]] = []
    topic, partition = target
    builder, inside = used.create_batch(), list[int]()
    for index in indices:
        _, _, key, value, headers = records[index]
        whole = {"timestamp": None, "key": key or None, "value": value, "headers": list(headers)}
        if builder.append(**whole) is None:
            batches.append((await used.send_batch(builder, topic, partition=partition), inside))
            builder, inside = used.create_batch(), []
            if builder.append(**whole) is None:
                raise Fatal(f"{topic}: a record of {len(value)} bytes does not fit one batch")
        inside.append(index)
    return [*batches, (await used.send_batch(builder, topic, partition=partition), inside)]
