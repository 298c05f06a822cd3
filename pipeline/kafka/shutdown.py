"""Ends of aiokafka's clients in bounded time: each may wait for ever for a broker that is not there.

Each end is a task of its own. Where a client cancels its inner tasks, that cancellation can come out of its ``stop()``,
and awaited directly it would end whoever closes: a partition then stood still with nothing logged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

STOP_S = 5


async def stop_producer(left: AIOKafkaProducer) -> None:
    """Let go of a producer; what it could not flush in time is given up."""
    if not await _ended(left.stop()):
        # stop() was cut off before it got here, and would leave a task behind that tries to send for ever
        await _ended(left._sender.close())
        await _ended(left.client.close())


async def stop_consumer(left: AIOKafkaConsumer) -> None:
    """Let go of a consumer. Its metadata task can miss the one cancellation it gets while an answer comes in."""
    await _ended(left.stop())


async def _ended(stop: Awaitable[None]) -> bool:
    """Tell whether it came to its end by itself in time."""
    task = asyncio.ensure_future(stop)
    done, _ = await asyncio.wait([task], timeout=STOP_S)
    if not done:
        task.cancel()
        await asyncio.wait([task], timeout=STOP_S)
        return False
    if task.cancelled():
        return False
    with contextlib.suppress(KafkaError):
        task.result()
    return True
