"""Committed offsets of consumer groups without members: up to where a partition's side effects were sent."""

from __future__ import annotations

from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.kafka.clients import REQUEST_TIMEOUT_MS, make_admin, make_consumer
from pipeline.kafka.shutdown import stop_consumer


class CommittedOffset(NamedTuple):
    """An offset, and the text that was committed with it."""

    offset: int
    metadata: str


class CommittedOffsets:
    """Offset up to which the side effects of each partition of a topic were sent, committed in a consumer group."""

    def __init__(self, kafka: KafkaEndpoint, group: str, topic: str) -> None:
        self._kafka = kafka
        self._group = group
        self._topic = topic
        self._consumer = make_consumer(kafka, group_id=group, request_timeout_ms=REQUEST_TIMEOUT_MS)

    async def start(self) -> None:
        """Connect. Raises Retryable where no broker answers."""
        try:
            await self._consumer.start()
        except KafkaError as error:
            raise Retryable(f"no committed offsets of {self._topic}: {error!r}") from error

    async def get(self, partition: int) -> int:
        """Give the committed offset, 0 where there is none. Raises Retryable."""
        try:
            return await self._consumer.committed(TopicPartition(self._topic, partition)) or 0
        except KafkaError as error:
            raise Retryable(f"no committed offset of {self._topic}[{partition}]: {error!r}") from error

    async def get_with_metadata(self, partition: int) -> CommittedOffset:
        """Give the committed offset with its metadata. Raises Retryable."""
        source = TopicPartition(self._topic, partition)
        admin = make_admin(self._kafka)
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(self._group, partitions=[source])
        except KafkaError as error:
            raise Retryable(f"no committed offset of {self._topic}[{partition}]: {error!r}") from error
        finally:
            await admin.close()
        committed = offsets.get(source)
        if committed is None or committed.offset < 0:
            return CommittedOffset(0, "")
        return CommittedOffset(committed.offset, committed.metadata or "")

    async def set(self, partition: int, offset: int, metadata: str = "") -> None:
        """Commit an offset. Raises Retryable."""
        source = TopicPartition(self._topic, partition)
        try:
            # commit() demands an assignment, which nothing is ever fetched for
            if source not in self._consumer.assignment():
                self._consumer.assign([*self._consumer.assignment(), source])
                self._consumer.pause(source)
            await self._consumer.commit({source: (offset, metadata)})
        except KafkaError as error:
            raise Retryable(f"{self._topic}[{partition}]: {offset} was not committed: {error!r}") from error

    async def close(self) -> None:
        await stop_consumer(self._consumer)
