"""Kafka by plain aiokafka: partition readers, the compare-and-swap log, and a publisher for actions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.errors import Fatal, Retryable
from pipeline.events.chain import HEADER, ChainReader, Entry, Position, links

MAX_BATCH_BYTES = 1024 * 1024
_REQUEST_TIMEOUT_MS = 10_000
Headers = Sequence[tuple[str, bytes]]


class Item:
    """One record of any topic as read: offset, broker time (ms), key, value, headers."""

    __slots__ = ("headers", "key", "offset", "time", "value")

    def __init__(self, offset: int, time: int, key: bytes, value: bytes, headers: Headers) -> None:
        self.offset, self.time, self.key, self.value, self.headers = (
            offset,
            time,
            key,
            value,
            headers,
        )

    def entry(self) -> Entry:
        link = next((value for name, value in self.headers if name == HEADER), None)
        return Entry(self.offset, self.time, link, self.value)


class PartitionReader:
    """Reads one partition from a given offset, by assignment; no group, no commits."""

    def __init__(self, bootstrap: str, topic: str, partition: int) -> None:
        self.at = TopicPartition(topic, partition)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=20,
            max_partition_fetch_bytes=4 * 1024 * 1024,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        self.position = 0

    async def start(self, offset: int | None = 0) -> None:
        """Open at ``offset``; None is the end."""
        await self._consumer.start()
        self._consumer.assign([self.at])
        begin = await self.begin()
        if offset is not None and offset < begin:
            raise Fatal(
                f"{self.at.topic}[{self.at.partition}] starts at {begin}, but {offset} is needed: retention took "
                "records that were not folded yet. Restore the topic or start a new generation."
            )
        self.seek(await self.end() if offset is None else offset)

    async def begin(self) -> int:
        return int((await self._ask(self._consumer.beginning_offsets([self.at])))[self.at])

    async def end(self) -> int:
        return int((await self._ask(self._consumer.end_offsets([self.at])))[self.at])

    def seek(self, offset: int) -> None:
        self._consumer.seek(self.at, offset)
        self.position = offset

    async def poll(self, limit: int = 1000, wait_ms: int = 200) -> list[Item]:
        """Up to ``limit`` records in offset order; empty after ``wait_ms`` without any."""
        try:
            got = await self._consumer.getmany(self.at, timeout_ms=wait_ms, max_records=limit)
        except KafkaError as error:
            raise await self._gone(error) from error
        found = [Item(r.offset, r.timestamp, r.key or b"", r.value or b"", r.headers) for r in got.get(self.at, ())]
        if found:
            self.position = found[-1].offset + 1
        return found

    async def read_to_end(self) -> list[Item]:
        """Everything from the position to the log's end as of now. A log that ends before it is Fatal."""
        end = await self.end()
        if end < self.position:
            raise Fatal(
                f"{self.at.topic}[{self.at.partition}] ends at {end}, below {self.position}, which was read before: "
                "the log was truncated. Do not go on; compare replicas, then restore or start a new generation."
            )
        found: list[Item] = []
        while self.position < end:
            found += await self.poll(5000)
        return found

    async def close(self) -> None:
        await self._consumer.stop()

    async def _ask(self, call: object) -> dict[TopicPartition, int]:
        try:
            return await call  # type: ignore[misc,no-any-return]
        except KafkaError as error:
            raise Retryable(f"{self.at.topic}[{self.at.partition}]: {error!r}") from error

    async def _gone(self, error: KafkaError) -> Exception:
        begin, end = await self.begin(), await self.end()
        if not begin <= self.position <= end:
            return Fatal(
                f"{self.at.topic}[{self.at.partition}] holds {begin} to {end}, but {self.position} comes next: "
                "records were cut away. Restore the topic or start a new generation."
            )
        return Retryable(f"{self.at.topic}[{self.at.partition}]: {error!r}")


def _producer(bootstrap: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_batch_size=MAX_BATCH_BYTES + 65_536,
        max_request_size=2 * 1024 * 1024,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
    )


class ChainedLog:
    """One partition of a single-writer topic: append on the history that was read, or learn that it moved on.

    ``append`` gives True only when the broker put the batch where it was predicted. Everything else is *unknown*:
    the producer is dropped (aiokafka may have used up a sequence number) and the caller must ``catch_up``, where
    its own batch may turn up as well.
    """

    def __init__(self, bootstrap: str, topic: str, partition: int) -> None:
        self._bootstrap = bootstrap
        self.topic, self.partition = topic, partition
        self._reader = PartitionReader(bootstrap, topic, partition)
        self._writer: AIOKafkaProducer | None = None
        self._chain = ChainReader()

    @property
    def at(self) -> Position:
        return self._chain.at

    async def start(self, at: Position | None = None) -> None:
        self._chain = ChainReader(at)
        await self._reader.start(self.at.offset)

    async def behind(self) -> bool:
        """True where somebody else has written since. A log that ends below what was folded is Fatal."""
        end = await self._reader.end()
        if end < self.at.offset:
            raise Fatal(
                f"{self.topic}[{self.partition}] ends at {end}, but was folded up to {self.at.offset}: the log was "
                "truncated. Do not go on; compare replicas, then restore or start a new generation."
            )
        return end > self.at.offset

    async def catch_up(self, limit: int | None = None) -> list[Entry]:
        """The valid records between the position and the end as of now."""
        valid: list[Entry] = []
        self._reader.seek(self.at.offset)
        for item in await self._reader.read_to_end():
            valid += self._chain.push(item.entry())
        return valid

    async def append(self, values: Sequence[bytes], key: bytes = b"") -> bool:
        """Write one batch at the position. False: not known to be there, catch up before anything else."""
        at = self.at
        try:
            if self._writer is None:
                self._writer = _producer(self._bootstrap)
                await self._writer.start()
            builder = self._writer.create_batch()
            for value, link in zip(values, links(at, len(values)), strict=True):
                if builder.append(timestamp=None, key=key, value=value, headers=[(HEADER, link)]) is None:
                    raise Fatal(f"{self.topic}: a step of {len(values)} records does not fit one batch")
            sent = await self._writer.send_batch(builder, self.topic, partition=self.partition)
            landed = (await asyncio.wait_for(sent, 2 * _REQUEST_TIMEOUT_MS / 1000)).offset
        except (KafkaError, TimeoutError):
            landed = -1
        if landed != at.offset:
            await self._drop_writer()
            return False
        self._chain.advance(values)
        return True

    async def close(self) -> None:
        await self._drop_writer()
        await self._reader.close()

    async def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            # the object is gone either way; the log says what became of its batch
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(writer.stop(), 5)


class Publisher:
    """Sends records whose order and duplicates do not matter to the ledger: actions, requests, documents."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        self._producer = _producer(self._bootstrap)
        await self._producer.start()

    async def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Headers = ()
    ) -> tuple[int, int]:
        """Write one record and give (partition, offset). Raises Retryable where the result is unknown."""
        return (await self.send_all([(topic, partition, key, value, headers)]))[0]

    async def send_all(self, records: Sequence[tuple[str, int, bytes, bytes, Headers]]) -> list[tuple[int, int]]:
        """Write all and wait for every acknowledgement."""
        if self._producer is None:
            await self.start()
        assert self._producer is not None
        try:
            futures = [
                await self._producer.send(
                    topic, value=value, key=key or None, partition=partition, headers=list(headers)
                )
                for topic, partition, key, value, headers in records
            ]
            sent = await asyncio.gather(*futures)
        except KafkaError as error:
            broken, self._producer = self._producer, None
            await broken.stop()
            raise Retryable(f"could not write {len(records)} records: {error!r}") from error
        return [(m.partition, m.offset) for m in sent]

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.stop()
