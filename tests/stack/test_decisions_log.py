"""The log of decisions on a real broker, with what must not be in it: forged records, halves, markers."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import HEADER, Link, links
from pipeline.events.records import Decision
from pipeline.kafka.clients import make_producer
from tests.admit_site import Writers, chain_of, read, until_answered


async def forge(kafka: KafkaEndpoint, value: bytes, link: bytes | None) -> None:
    """Write one record as anybody could who reaches the broker."""
    producer = make_producer(kafka)
    await producer.start()
    try:
        headers = [] if link is None else [(HEADER, link)]
        await producer.send_and_wait("decisions", value, key=b"", partition=0, headers=headers)
    finally:
        await producer.stop()


async def mark_a_transaction(kafka: KafkaEndpoint) -> None:
    """Leave a record and two markers: one transaction that is committed, one that is aborted."""
    producer = make_producer(kafka, transactional_id="stranger")
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send("decisions", b"?", partition=0)
        await producer.begin_transaction()
        await producer.send("decisions", b"?", partition=0)
        await producer.abort_transaction()
    finally:
        await producer.stop()


def test_halves_markers_and_forged_records_are_passed_over_and_every_request_is_answered(deployment: Any) -> None:
    async def scene() -> None:
        bootstrap = deployment.bootstrap
        async with Writers(deployment) as writers:
            await writers.produce("acme", ["a", "b"], 1, session="s1")
            writers.start()
            await until_answered(bootstrap, 2)
            writers.stop.set()
            await asyncio.gather(*writers.tasks)
            # half a batch on the right history and place, then markers, then a decision for the next request
            position = (await chain_of(bootstrap)).at
            await forge(deployment.kafka, b"half", links(position, 2, (position.source, position.source))[0])
            await mark_a_transaction(deployment.kafka)
            await forge(deployment.kafka, b"nobody", None)
            chain = await chain_of(bootstrap)
            end = (await read(bootstrap, "decisions"))[-1].offset + 1
            forged = Link(end, 0, 1, chain.at.digest, chain.at.source + 1, chain.at.source + 2)
            await forge(deployment.kafka, b"passes over a request", forged.pack())
            writers.stop.clear()
            writers.tasks.clear()
            writers.start()
            await writers.produce("acme", ["c"], 3, session="s1")
            records = await until_answered(bootstrap, 3)
        decided = [r.facts.offset for r in records if isinstance(r, Decision)]
        assert decided == [0, 1, 2]

    asyncio.run(scene())
