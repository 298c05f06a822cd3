"""Floods of garbage and batches that unpack to very much, on a real broker with its default heap: it lives, and the
request behind them is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from pipeline.control import topics as topic_admin
from pipeline.events.codec import decode
from pipeline.events.messages import DeadLetter
from pipeline.events.records import Decision
from pipeline.kafka.bounded_batches import MAX_BATCH_RECORDS
from pipeline.kafka.clients import make_admin, make_producer
from tests.admit_site import Writers, history, read, until_answered
from tests.kafka_batches import batch, big_bomb, equal_bomb, many_bomb, plain, record, send_batch
from tests.patience import STUCK_S, looks

MIB = 1024 * 1024
BOMBS: dict[str, tuple[Callable[[], bytes], int]] = {
    "300 MB of gzip": (lambda: big_bomb("gzip", 300 * MIB), 1),
    "300 MB of lz4": (lambda: big_bomb("lz4", 300 * MIB), 1),
    "300 MB of zstd": (lambda: big_bomb("zstd", 300 * MIB), 1),
    "36 MB of snappy": (lambda: big_bomb("snappy", 36 * MIB), 1),
    "a million records of zstd": (lambda: many_bomb("zstd", 1_000_000), 1_000_000),
    "many records of gzip": (lambda: many_bomb("gzip", MAX_BATCH_RECORDS + 1), MAX_BATCH_RECORDS + 1),
    "many records of lz4": (lambda: many_bomb("lz4", 100_000), 100_000),
    "many records of snappy": (lambda: many_bomb("snappy", 100_000), 100_000),
}


def raw_producer(deployment: Any, **options: Any) -> Any:
    sizes = {"max_batch_size": 2_000_000, "max_request_size": 2_000_000}
    return make_producer(deployment.kafka, enable_idempotence=False, **sizes, **options)


def test_a_bomb_is_answered_by_one_decision_and_the_request_behind_it_is_served(deployment: Any) -> None:
    async def scene() -> None:
        pid = deployment.broker.pid
        spans = {}
        async with asyncio.timeout(STUCK_S), Writers(deployment) as writers, raw_producer(deployment) as producer:
            writers.start()
            for number, (name, (made, count)) in enumerate(BOMBS.items()):
                first = await send_batch(producer, made(), "requests")
                spans[name] = first, first + count - 1
                await writers.produce("acme", [f"behind-{number}"], number + 1, session="bombs")
            records = await until_answered(deployment.bootstrap, 2 * len(BOMBS))
        decisions = [r for r in records if isinstance(r, Decision)]
        refused = [d for d in decisions if d.verdict == "deny"]
        assert [(d.facts.start, d.facts.offset) for d in refused] == list(spans.values())
        assert {d.reasons for d in refused} == {("unreadable_batch",)}
        assert sum(d.verdict == "admit" for d in decisions) == len(BOMBS)
        letters = [decode(DeadLetter, item.value) for item in await read(deployment.bootstrap, "dead_letters")]
        starts = [(letter.first if letter.first >= 0 else letter.offset, letter.offset) for letter in letters]
        assert starts == list(spans.values())
        assert deployment.broker.pid == pid
        assert deployment.broker.alive

    asyncio.run(scene())


def test_a_flood_of_garbage_is_few_decisions_over_every_offset(deployment: Any) -> None:
    async def scene() -> None:
        before = len(await history(deployment.bootstrap))
        async with asyncio.timeout(STUCK_S), Writers(deployment) as writers, raw_producer(deployment) as producer:
            starts = [await send_batch(producer, plain([b"garbage"] * 20_000), "requests") for _ in range(3)]
            await writers.produce("acme", ["behind-the-flood"], 1, session="flood")
            writers.start()
            for _ in looks():
                decisions = [r for r in (await history(deployment.bootstrap))[before:] if isinstance(r, Decision)]
                if decisions and decisions[-1].verdict == "admit":
                    break
                await asyncio.sleep(0.1)
        refused = decisions[:-1]
        assert {d.reasons for d in refused} == {("malformed",)}
        covered = [offset for d in refused for offset in range(d.facts.start, d.facts.offset + 1)]
        assert covered == list(range(starts[0], starts[0] + 60_000))
        assert len(refused) < 200
        letters = [decode(DeadLetter, item.value) for item in await read(deployment.bootstrap, "dead_letters")]
        assert sum(letter.reason == "malformed" for letter in letters) == len(refused)

    asyncio.run(scene())


def test_a_record_that_lies_about_its_offset_loses_nobody_elses_request(deployment: Any) -> None:
    """The broker takes a batch that is not compressed without a look at the offsets of its records."""

    async def scene() -> None:
        before = len(await history(deployment.bootstrap))
        lies = batch(record(0, b"garbage") + record(1_000_000, b"garbage"), 2)
        async with asyncio.timeout(STUCK_S), Writers(deployment) as writers, raw_producer(deployment) as producer:
            writers.start()
            first = await send_batch(producer, lies, "requests")
            await writers.produce("acme", ["behind-the-lies"], 1, session="lies")
            for _ in looks():
                decisions = [r for r in (await history(deployment.bootstrap))[before:] if isinstance(r, Decision)]
                if decisions and decisions[-1].verdict == "admit":
                    break
                await asyncio.sleep(0.1)
        spans = [(d.facts.start, d.facts.offset, *d.reasons) for d in decisions]
        last = (first + 2, first + 2)
        assert spans == [(first, first, "malformed"), (first + 1, first + 1, "unreadable_batch"), last]

    asyncio.run(scene())


@pytest.mark.parametrize("codec", ["", "gzip", "snappy", "lz4", "zstd"])
def test_an_honest_batch_of_any_codec_is_read(deployment: Any, codec: str) -> None:
    async def scene() -> None:
        values = [b"%d" % n + bytes(1000) for n in range(50)]
        async with asyncio.timeout(STUCK_S), raw_producer(deployment) as producer:
            first = await send_batch(producer, plain(values, codec), "dead_letters")
        found = [item for item in await read(deployment.bootstrap, "dead_letters") if item.offset >= first]
        assert [item.value for item in found] == values

    asyncio.run(scene())


def test_a_batch_that_a_broker_cannot_count_is_not_in_the_log_when_it_is_back(deployment: Any) -> None:
    """Kafka counts the records of a batch in memory before it takes it, and ten million are more than that holds."""

    async def scene() -> None:
        before = len(await read(deployment.bootstrap, "requests"))
        with pytest.raises(KafkaError):
            async with raw_producer(deployment, request_timeout_ms=20_000) as producer:
                await send_batch(producer, equal_bomb("gzip", 10_000_000), "requests")
        for _ in looks():
            if not deployment.broker.alive:
                break
            await asyncio.sleep(0.1)
        # as sluice up does
        await asyncio.to_thread(deployment.broker.start)
        assert len(await read(deployment.bootstrap, "requests")) == before
        decided = sum(isinstance(r, Decision) for r in await history(deployment.bootstrap))
        async with asyncio.timeout(STUCK_S), Writers(deployment) as writers:
            writers.start()
            await writers.produce("acme", ["after"], 1, session="after")
            await until_answered(deployment.bootstrap, decided + 1)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("topic", "own", "after"),
    [
        ("findings", {"compression.type": "uncompressed"}, {"compression.type": "producer"}),
        ("snapshots", {"cleanup.policy": "compact"}, {"segment.bytes": "16777216", "min.cleanable.dirty.ratio": "0.1"}),
    ],
)
def test_topics_of_an_older_build_are_stored_as_those_of_today_and_keep_the_rest(
    deployment: Any, topic: str, own: dict[str, str], after: dict[str, str]
) -> None:
    async def scene() -> None:
        admin = make_admin(deployment.kafka)
        await admin.start()
        kept = {"retention.ms": "123456789"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, own | kept)])
        faults = "".join(await topic_admin.check(deployment.kafka, deployment.pin))
        assert all(f"{topic}: expected {name}={value}, the broker has" in faults for name, value in after.items())
        assert await topic_admin.create(deployment.kafka, 1, 1) == []
        faults = "".join(await topic_admin.check(deployment.kafka, deployment.pin))
        assert not any(f"{topic}: expected {name}" in faults for name in after)
        asked = ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys(own | kept | after, ""))
        [response] = await admin.describe_configs([asked])
        found = {entry[0]: entry[1] for entry in response.resources[0][4]}
        await admin.close()
        assert found == own | kept | after

    asyncio.run(scene())
