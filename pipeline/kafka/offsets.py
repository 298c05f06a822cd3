"""Where partitions begin and end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from pipeline.errors import Retryable
from pipeline.kafka.shutdown import stop_consumer

REQUEST_TIMEOUT_MS = 10_000


class Offsets:
    """Where partitions begin and end, asked over a connection of its own.

    A broker answers one request at a time per connection, so beside a long fetch the question would wait.
    """

    def __init__(self, bootstrap: str) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS)
        self._started = asyncio.Lock()
        self._open = False

    async def begin(self, at: TopicPartition) -> int:
        return await self._ask(self._consumer.beginning_offsets, at)

    async def end(self, at: TopicPartition) -> int:
        return await self._ask(self._consumer.end_offsets, at)

    async def close(self) -> None:
        await stop_consumer(self._consumer)

    async def _ask(
        self, question: Callable[[list[TopicPartition]], Awaitable[dict[TopicPartition, int]]], at: TopicPartition
    ) -> int:
        try:
            async with self._started:
                if not self._open:
                    await self._consumer.start()
                    self._open = True
            return int((await question([at]))[at])
        except KafkaError as error:
            raise Retryable(f"{at.topic}[{at.partition}]: {error!r}") from error
