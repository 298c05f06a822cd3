"""SEAL on a real broker and the real store: batches bounded by bytes, and nothing inserted twice over a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import free_port
from pipeline.endpoints import ClickHouseEndpoint, KafkaEndpoint
from pipeline.errors import Fatal
from pipeline.events.codec import encode
from pipeline.events.messages import Access
from pipeline.kafka.clients import make_admin
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.writer import Publisher
from pipeline.keys.files import create_log_keys
from pipeline.seal.partition import SealContext, SealPartition
from pipeline.seal.signer import LogSigner
from tests.patience import looks

LARGE, COUNT = 900_000, 80


@pytest.fixture
def store(deployment: Any, tmp_path: Path) -> Iterator[ClickHouseStore]:
    started = EmbeddedStore(StoreSettings(tmp_path / "store", free_port(), "word"), deployment.supervisor)
    started.start()
    store = ClickHouseStore(ClickHouseEndpoint(started.url, "sluice", "word"))
    store.connect(20)
    store.apply_migrations()
    yield store
    started.stop()


async def seal_until(
    deployment: Any, keys: Path, store: ClickHouseStore, offsets: Offsets, reached: Callable[[], Awaitable[bool]]
) -> None:
    """Run a fresh sealer until ``reached``, then stop it as SIGTERM would."""
    stop = asyncio.Event()
    control = deployment.control_table.control
    signer = LogSigner(keys, control)
    sealer = SealPartition(SealContext(deployment.kafka, control.generation, signer, store, offsets, 4096, 50), 0)
    running = asyncio.create_task(sealer.run(stop))
    for _ in looks():
        if running.done() or await reached():
            break
        await asyncio.sleep(0.1)
    stop.set()
    await running
    assert await reached()


def at_least(count: int, rows: Callable[[], tuple[int, int]]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return (await asyncio.to_thread(rows))[0] >= count

    return ask


def test_large_records_are_sealed_in_batches_that_the_store_takes(
    deployment: Any, store: ClickHouseStore, tmp_path: Path
) -> None:
    keys = tmp_path / "log-key.json"
    create_log_keys(keys, "sluice")

    def rows() -> tuple[int, int]:
        return store.query("SELECT count(), uniqExact(leaf) FROM records WHERE body LIKE '%\"ann\"%'")[0]

    async def scene() -> None:
        publisher, offsets = Publisher(deployment.kafka), Offsets(deployment.kafka)
        for n in range(COUNT):
            # random text, as sealed texts do not compress either
            act = Access(n, "ann", "read", "acme", os.urandom(LARGE // 2).hex())
            await publisher.send("access", 0, b"acme", encode(act))
        await seal_until(deployment, keys, store, offsets, at_least(COUNT, rows))
        await publisher.send("access", 0, b"acme", encode(Access(COUNT, "ann", "read")))
        await seal_until(deployment, keys, store, offsets, at_least(COUNT + 1, rows))
        await publisher.close()
        await offsets.close()

    asyncio.run(scene())
    assert rows() == (COUNT + 1, COUNT + 1)
    sizes = store.query("SELECT batch, sum(length(body)) FROM records WHERE kind = 'access' GROUP BY batch")
    assert len(sizes) > 2
    assert max(size for _, size in sizes) < 33 * 1024 * 1024


def test_after_a_long_rest_retention_has_taken_the_last_batch_and_sealing_goes_on(
    deployment: Any, store: ClickHouseStore, tmp_path: Path
) -> None:
    keys = tmp_path / "log-key.json"
    create_log_keys(keys, "sluice")

    def rows() -> tuple[int, int]:
        return store.query("SELECT count(), uniqExact(leaf) FROM records WHERE body LIKE '%\"bob\"%'")[0]

    async def scene() -> None:
        publisher, offsets = Publisher(deployment.kafka), Offsets(deployment.kafka)
        for n in range(3):
            await publisher.send("access", 0, b"acme", encode(Access(n, "bob", "read")))
        await seal_until(deployment, keys, store, offsets, at_least(3, rows))
        await forget(deployment.kafka, TopicPartition("access", 0), offsets)
        await publisher.send("access", 0, b"acme", encode(Access(3, "bob", "read")))
        await seal_until(deployment, keys, store, offsets, at_least(4, rows))
        assert rows() == (4, 4)
        await forget(deployment.kafka, TopicPartition("access", 0), offsets)
        command = "ALTER TABLE records DELETE WHERE body LIKE '%\"bob\"%' SETTINGS mutations_sync = 2"
        await asyncio.to_thread(store._command, command)
        with pytest.raises(Fatal, match=r"expected 1 rows in the store, got 0"):
            await seal_until(deployment, keys, store, offsets, at_least(4, rows))
        await publisher.close()
        await offsets.close()

    asyncio.run(scene())


async def forget(kafka: KafkaEndpoint, source: TopicPartition, offsets: Offsets) -> None:
    """Delete all that the partition holds, as retention does after a long rest."""
    admin = make_admin(kafka)
    await admin.start()
    try:
        await admin.delete_records({source: RecordsToDelete(before_offset=await offsets.end(source))})
    finally:
        await admin.close()
