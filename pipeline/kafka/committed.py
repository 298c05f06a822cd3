"""Committed offsets of groups without members: how far the side effects of a partition went."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from pipeline.errors import Retryable
from pipeline.kafka.offsets import REQUEST_TIMEOUT_MS
from pipeline.kafka.shutdown import stop_consumer


class CommittedOffsets:
    """How far actions went, per partition of a topic: committed offsets of a group without members."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self._bootstrap, self._group, self._topic = bootstrap, group, topic
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False, request_timeout_ms=REQUEST_TIMEOUT_MS
        )

    async def start(self) -> None:
        """Raises Retryable where no broker answers."""
        try:
            await self._consumer.start()
        except KafkaError as error:
            raise Retryable(f"no marks of {self._topic}: {error!r}") from error

    async def get(self, partition: int) -> int:
        """The mark, 0 where there is none. Raises Retryable."""
        try:
            return await self._consumer.committed(TopicPartition(self._topic, partition)) or 0
        except KafkaError as error:
            raise Retryable(f"no mark of {self._topic}[{partition}]: {error!r}") from error

    async def get_with_note(self, partition: int) -> tuple[int, str]:
        """The mark and the note that was set with it. Raises Retryable."""
        at, admin = TopicPartition(self._topic, partition), AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            await admin.start()
            found = (await admin.list_consumer_group_offsets(self._group, partitions=[at])).get(at)
        except KafkaError as error:
            raise Retryable(f"no mark of {self._topic}[{partition}]: {error!r}") from error
        finally:
            await admin.close()
        return (0, "") if found is None or found.offset < 0 else (found.offset, found.metadata or "")

    async def set(self, partition: int, offset: int, note: str = "") -> None:
        """Raises Retryable."""
        at = TopicPartition(self._topic, partition)
        try:
            # commit() demands an assignment, which nothing is ever fetched for
            if at not in self._consumer.assignment():
                self._consumer.assign([*self._consumer.assignment(), at])
                self._consumer.pause(at)
            await self._consumer.commit({at: (offset, note)})
        except KafkaError as error:
            raise Retryable(f"no mark of {self._topic}[{partition}] at {offset}: {error!r}") from error

    async def close(self) -> None:
        await stop_consumer(self._consumer)
