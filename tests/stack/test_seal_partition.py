"""SEAL on a real broker and the real store: batches bounded by bytes, and nothing inserted twice over a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline.audit.checkpoint import LogKeys
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import free_port
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.events.codec import encode
from pipeline.events.messages import Access
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.writer import Publisher
from pipeline.keys.files import create_log_keys
from pipeline.seal.partition import SealContext, SealPartition
from tests.patience import looks

LARGE, COUNT = 900_000, 80


async def seal_until(
    deployment: Any, keys: LogKeys, store: ClickHouseStore, offsets: Offsets, reached: Callable[[], Awaitable[bool]]
) -> None:
    """Run a fresh sealer until ``reached``, then stop it as SIGTERM would."""
    stop = asyncio.Event()
    generation = deployment.control_table.control.require_deployment().generation
    sealer = SealPartition(SealContext(deployment.kafka, generation, keys, store, offsets, 4096, 50), 0)
    running = asyncio.create_task(sealer.run(stop))
    for _ in looks():
        if running.done() or await reached():
            break
        await asyncio.sleep(0.1)
    stop.set()
    await running
    assert await reached()


def test_large_records_are_sealed_in_batches_that_the_store_takes(deployment: Any, tmp_path: Path) -> None:
    started = EmbeddedStore(StoreSettings(tmp_path / "store", free_port(), "word"), deployment.supervisor)
    started.start()
    store = ClickHouseStore(ClickHouseEndpoint(started.url, "sluice", "word"))
    store.connect(20)
    store.apply_migrations()
    keys = create_log_keys(tmp_path / "log-key.json", "sluice")

    def rows() -> tuple[int, int]:
        return store.query("SELECT count(), uniqExact(leaf) FROM records WHERE body LIKE '%\"ann\"%'")[0]

    def reached(count: int) -> Callable[[], Awaitable[bool]]:
        async def ask() -> bool:
            return (await asyncio.to_thread(rows))[0] >= count

        return ask

    async def scene() -> None:
        publisher, offsets = Publisher(deployment.kafka), Offsets(deployment.kafka)
        for n in range(COUNT):
            # random text, as sealed texts do not compress either
            act = Access(n, "ann", "read", "acme", os.urandom(LARGE // 2).hex())
            await publisher.send("access", 0, b"acme", encode(act))
        await seal_until(deployment, keys, store, offsets, reached(COUNT))
        await publisher.send("access", 0, b"acme", encode(Access(COUNT, "ann", "read")))
        await seal_until(deployment, keys, store, offsets, reached(COUNT + 1))
        await publisher.close()
        await offsets.close()

    asyncio.run(scene())
    assert rows() == (COUNT + 1, COUNT + 1)
    sizes = store.query("SELECT batch, sum(length(body)) FROM records WHERE kind = 'access' GROUP BY batch")
    assert len(sizes) > 2
    assert max(size for _, size in sizes) < 33 * 1024 * 1024
