"""Ends of aiokafka's clients in bounded time: each may wait for ever for a broker that is not there."""

from __future__ import annotations

import asyncio
import contextlib

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

STOP_S = 5


async def stop_producer(left: AIOKafkaProducer) -> None:
    """Let go of a producer; what it could not flush in time is given up."""
    try:
        await asyncio.wait_for(left.stop(), STOP_S)
    except KafkaError:
        pass
    except TimeoutError:
        # stop() was cut off before it got here, and would leave a task behind that tries to send for ever
        with contextlib.suppress(KafkaError):
            await left._sender.close()
            await left.client.close()


async def stop_consumer(left: AIOKafkaConsumer) -> None:
    """Let go of a consumer. Its metadata task can miss the one cancellation it gets while an answer comes in."""
    with contextlib.suppress(KafkaError, TimeoutError):
        await asyncio.wait_for(left.stop(), STOP_S)
