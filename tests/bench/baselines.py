"""What admit is measured against, each a process of its own that prints records and CPU seconds at its end.

``faust``: a plain agent that decodes JSON and counts. ``bare``: aiokafka reads batches and writes the same bytes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import faust
from aiokafka import TopicPartition

from pipeline.endpoints import KafkaEndpoint
from pipeline.kafka.clients import make_consumer, make_producer

WARM = 500


async def faust_agent(bootstrap: str, topic: str, count: int) -> None:
    """Run a Faust app until ``count`` records were seen, then end the process."""
    app = faust.App(
        "bench-faust",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    source = app.topic(topic, value_serializer="json")
    seen = {"records": 0, "tokens": 0}
    began = 0.0

    @app.agent(source)
    async def count_tokens(stream: Any) -> None:
        nonlocal began
        async for body in stream:
            seen["records"] += 1
            seen["tokens"] += body["max_tokens"]
            if seen["records"] == WARM:
                began = time.process_time()
            if seen["records"] == count:
                _say(count - WARM, time.process_time() - began)

    await app.start()
    await asyncio.sleep(600)


async def bare_loop(bootstrap: str, topic: str, count: int) -> None:
    """Read ``count`` records in batches and write each batch to another topic before the next."""
    consumer = make_consumer(KafkaEndpoint(bootstrap))
    producer = make_producer(KafkaEndpoint(bootstrap), max_batch_size=1024 * 1024)
    await consumer.start()
    await producer.start()
    at = TopicPartition(topic, 0)
    consumer.assign([at])
    consumer.seek(at, 0)
    done, began = 0, 0.0
    while done < count:
        found = (await consumer.getmany(at, timeout_ms=500, max_records=512)).get(at, [])
        began = began or time.process_time()
        builder = producer.create_batch()
        for record in found:
            builder.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
        if found:
            await (await producer.send_batch(builder, "bench-out", partition=0))
        done += len(found)
    _say(done, time.process_time() - began)


def _say(records: int, cpu: float) -> None:
    print(f"RESULT {records} {cpu}", flush=True)
    os._exit(0)


if __name__ == "__main__":
    kind, servers, name, wanted = sys.argv[1:5]
    asyncio.run((faust_agent if kind == "faust" else bare_loop)(servers, name, int(wanted)))
