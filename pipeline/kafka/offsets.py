"""Answers where partitions begin, end, and stood at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.kafka.clients import REQUEST_TIMEOUT_MS, make_consumer
from pipeline.kafka.shutdown import stop_consumer


class Offsets:
    """Asks brokers for offsets of partitions over a connection of its own.

    A broker answers one request at a time per connection, so beside a long fetch the question would wait.
    """

    def __init__(self, kafka: KafkaEndpoint) -> None:
        self._consumer = make_consumer(kafka, request_timeout_ms=REQUEST_TIMEOUT_MS)
        self._started = asyncio.Lock()
        self._open = False

    async def begin(self, source: TopicPartition) -> int:
        return int(await self._ask(self._consumer.beginning_offsets, [source], source))

    async def end(self, source: TopicPartition) -> int:
        return int(await self._ask(self._consumer.end_offsets, [source], source))

    async def since(self, source: TopicPartition, time: int) -> int | None:
        """Give the offset of the first record appended at ``time`` (Unix ms) or later, None where there is none."""
        first = await self._ask(self._consumer.offsets_for_times, {source: max(0, time)}, source)
        return None if first is None else int(first.offset)

    async def close(self) -> None:
        await stop_consumer(self._consumer)

    async def _ask(self, question: Callable[[Any], Awaitable[Any]], argument: Any, source: TopicPartition) -> Any:
        try:
            async with self._started:
                if not self._open:
                    await self._consumer.start()
                    self._open = True
            return (await question(argument))[source]
        except KafkaError as error:
            raise Retryable(f"{source.topic}[{source.partition}]: {error!r}") from error
