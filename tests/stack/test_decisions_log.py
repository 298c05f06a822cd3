"""The log of decisions on a real broker, with what must not be in it: forged records, halves, markers."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec
import pytest

from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import HEADER, Link, links
from pipeline.events.codec import encode
from pipeline.events.records import ControlMark, Decision, Facts, Outcome, SnapshotChunk, Tick
from pipeline.kafka.clients import make_producer
from tests.admit_site import Writers, chain_of, history, read, until_answered
from tests.patience import STUCK_S, looks


async def forge(kafka: KafkaEndpoint, value: bytes, link: bytes | None, topic: str = "decisions") -> None:
    """Write one record as anybody could who reaches the broker."""
    producer = make_producer(kafka)
    await producer.start()
    try:
        headers = [] if link is None else [(HEADER, link)]
        await producer.send_and_wait(topic, value, key=b"", partition=0, headers=headers)
    finally:
        await producer.stop()


async def forge_batch(deployment: Any, values: list[bytes], answered: int) -> None:
    """Write a batch on the right history and at the right place, which claims to answer so many requests."""
    source = (await chain_of(deployment.bootstrap)).at.source
    end = (await read(deployment.bootstrap, "decisions"))[-1].offset + 1
    position = (await chain_of(deployment.bootstrap)).at._replace(offset=end)
    for value, link in zip(values, links(position, len(values), (source, source + answered)), strict=True):
        await forge(deployment.kafka, value, link)


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


FORGED: dict[str, tuple[list[bytes], int]] = {
    "no JSON": ([b"{"], 1),
    "no record of the log": ([b'{"kind":"wish","time":1}'], 0),
    "values within values": ([b'{"kind":"tick","time":1,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"], 0),
    "a tick that claims to answer": ([encode(Tick(1))], 5),
    "another request's answer": ([encode(Decision("q", Facts(10**6, 1), "deny", 0))], 1),
    "an outcome of nothing that is open": ([encode(Outcome("q", 1, "finished", "acme", "acme", "acme-app", 1))], 0),
    "a large one": ([b"x" * 900_000], 1),
}


def test_a_forged_batch_at_the_right_place_neither_stops_the_partition_nor_answers_a_request(deployment: Any) -> None:
    """While a worker serves, and for one that comes later."""

    async def scene() -> None:
        bootstrap = deployment.bootstrap
        before = sum(isinstance(record, Decision) for record in await history(bootstrap))
        async with Writers(deployment) as writers:
            writers.start()
            for number, (values, answered) in enumerate(FORGED.values(), 1):
                await forge_batch(deployment, values, answered)
                await writers.produce("acme", [f"live-{number}"], number, session="live")
                await until_answered(bootstrap, before + number)
            writers.stop.set()
            await asyncio.gather(*writers.tasks)
            for values, answered in FORGED.values():
                await forge_batch(deployment, values, answered)
            writers.stop.clear()
            writers.tasks.clear()
            writers.start()
            await writers.produce("acme", ["later"], len(FORGED) + 1, session="live")
            records = await until_answered(bootstrap, before + len(FORGED) + 1)
            assert not any(task.done() for task in writers.tasks)
        decided = [record for record in records if isinstance(record, Decision)]
        assert [decision.facts.offset for decision in decided] == list(range(len(decided)))
        assert {decision.verdict for decision in decided} == {"admit"}

    asyncio.run(scene())


def test_a_snapshot_that_nobody_marked_is_passed_over(deployment: Any) -> None:
    """Bytes of no ledger, and the ledger of now stored as of another place."""

    async def scene() -> None:
        bootstrap = deployment.bootstrap
        before = sum(isinstance(record, Decision) for record in await history(bootstrap))
        async with Writers(deployment) as writers:
            worker = writers.start()
            await writers.produce("acme", ["before"], 1, session="snapshots")
            await until_answered(bootstrap, before + 1)
            content, position = worker._history.ledger.dump(), worker._history._log.position
            writers.stop.set()
            await asyncio.gather(*writers.tasks)
            for slot, stored in enumerate((content, b"[" * 50_000, b"sluice ledger\n")):
                digest = hashlib.sha256(stored).digest()
                for offset in (1, position.offset - 1):
                    chunk = SnapshotChunk(7 + slot, 0, 1, offset, position.digest, digest, stored)
                    await forge(deployment.kafka, msgspec.msgpack.encode(chunk), None, "snapshots")
                    await forge(deployment.kafka, encode(chunk), None, "snapshots")
            writers.stop.clear()
            writers.tasks.clear()
            writers.start()
            await writers.produce("acme", ["behind"], 2, session="snapshots")
            await until_answered(bootstrap, before + 2)
            assert not any(task.done() for task in writers.tasks)

    asyncio.run(scene())


def test_a_document_that_control_lacks_is_told_and_waited_for_until_the_worker_is_stopped(
    deployment: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Last of this file: the log names a document for good."""

    async def scene() -> None:
        async with Writers(deployment) as writers:
            await forge_batch(deployment, [encode(ControlMark(1, 10**9))], 0)
            writers.start()
            for _ in looks():
                if "was decided by document 1000000000 of control" in caplog.text:
                    break
                await asyncio.sleep(0.1)
            writers.stop.set()
            await asyncio.wait_for(asyncio.gather(*writers.tasks, return_exceptions=True), STUCK_S)
        assert "was decided by document 1000000000 of control" in caplog.text

    asyncio.run(scene())
