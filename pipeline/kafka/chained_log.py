"""Compare-and-swap on a Kafka partition: one batch is one step, and it lands where predicted or counts for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Unrecoverable
from pipeline.events.chain import HEADER, UNKNOWN, ChainReader, Entry, Position, links
from pipeline.kafka.clients import REQUEST_TIMEOUT_MS
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.shutdown import stop_producer
from pipeline.kafka.writer import batch_producer


class ChainedLog:
    """One partition of a single-writer topic: append on the history that was read, or learn that it moved on.

    ``append`` gives a time only when the broker put the batch where it was predicted. Everything else is *unknown*:
    the producer is dropped (aiokafka may have used up a sequence number) and the caller must ``catch_up``, where
    its own batch may turn up as well.
    """

    def __init__(self, kafka: KafkaEndpoint, topic: str, partition: int, offsets: Offsets | None = None) -> None:
        self._kafka = kafka
        self.topic = topic
        self.partition = partition
        self._reader = PartitionReader(kafka, topic, partition, offsets)
        self._writer: AIOKafkaProducer | None = None
        self._chain = ChainReader()

    @property
    def position(self) -> Position:
        """Position of the next batch."""
        return self._chain.at._replace(offset=self._chain.next_offset)

    @property
    def skipped(self) -> int:
        """Records that were passed over since ``start``: of losing writers, of no writer of ours, half a batch."""
        return self._chain.skipped

    async def start(self, position: Position | None = None) -> None:
        """Open at a position, or move there."""
        self._chain = ChainReader(position)
        await self._reader.start(self.position.offset)
        self._reader.pause()

    async def behind(self) -> bool:
        """Tell whether another writer has written since. A log that ends below what was folded is past mending."""
        end = await self._reader.end()
        if end < self.position.offset:
            raise Unrecoverable(
                f"{self.topic}[{self.partition}] ends at {end}, but was folded up to {self.position.offset}: "
                "the log was truncated. Do not go on; compare replicas, then restore or start a new generation."
            )
        return end > self.position.offset

    async def catch_up(self, limit: int = 20_000) -> list[Entry]:
        """Read the valid records from the position to the end as of now, or about ``limit`` records on."""
        end = await self._reader.end()
        if end < self.position.offset:
            await self.behind()
        # On an error nothing was read: the caller's fold and this position stay together.
        chain, valid = self._chain.copy(), list[Entry]()
        self._reader.seek(self.position.offset)
        self._reader.resume()
        try:
            while self._reader.position < end and self._reader.position - self.position.offset < limit:
                for item in await self._reader.poll(5000):
                    valid += chain.push(item.entry())
            chain.skip_to(min(self._reader.position, end))
        finally:
            # our own batches must not come back to us
            self._reader.pause()
        self._chain = chain
        return valid

    async def append(
        self, values: Sequence[bytes], key: bytes = b"", span: tuple[int, int] | None = None
    ) -> int | None:
        """Write one batch at the position and give its append time in Unix ms. None: not known to be there, catch up
        before anything else.

        ``span`` is the part of the source that the batch answers; without it the links are of version 1.
        """
        position = self.position
        start = UNKNOWN if span is None else span[0]
        if position.source not in (UNKNOWN, start):
            raise Fatal(
                f"{self.topic}[{self.partition}]: expected a batch that goes on at source offset {position.source}, "
                f"got one from {start}. The writer is wrong and nothing was written; start it again."
            )
        try:
            if self._writer is None:
                self._writer = batch_producer(self._kafka)
                await self._writer.start()
            builder = self._writer.create_batch()
            for value, link in zip(values, links(position, len(values), span), strict=True):
                if builder.append(timestamp=None, key=key, value=value, headers=[(HEADER, link)]) is None:
                    raise Fatal(f"{self.topic}: a step of {len(values)} records does not fit one batch")
            sent = await self._writer.send_batch(builder, self.topic, partition=self.partition)
            landed = await asyncio.wait_for(sent, 2 * REQUEST_TIMEOUT_MS / 1000)
        except (KafkaError, TimeoutError):
            landed = None
        if landed is None or landed.offset != position.offset:
            await self._drop_writer()
            return None
        if landed.timestamp < 0:
            raise Fatal(
                f"{self.topic}[{self.partition}]: expected a broker that tells the append time, got none. Set "
                "message.timestamp.type=LogAppendTime (sluice topics apply), then start again."
            )
        self._chain.advance(values, span)
        return int(landed.timestamp)

    async def close(self) -> None:
        await self._drop_writer()
        await self._reader.close()

    async def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            # the object is gone either way; the log says what became of its batch
            await stop_producer(writer)
