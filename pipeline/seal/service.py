"""The seal process: settings to a running sealer."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import START_S, followed_control
from pipeline.errors import ConfigError
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.keys.files import load_log_keys
from pipeline.retry import retry_until
from pipeline.status_server import served_status


async def seal(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.clickhouse.store import ClickHouseStore
    from pipeline.seal.partition import SealContext, SealPartition
    from pipeline.seal.signer import LogSigner

    # a missing file is told before a dependency is waited for
    load_log_keys(settings.keys.log_key)
    kafka = settings.kafka.endpoint
    store, offsets = ClickHouseStore(settings.clickhouse.endpoint), Offsets(kafka)

    async def connect() -> None:
        await asyncio.to_thread(store.try_connect)

    try:
        async with served_status(settings, WorkerStatus("seal")) as status:
            await retry_until(connect, START_S, f"ClickHouse at {store.address}", stop)
            differences = await asyncio.to_thread(store.check_tables)
            if differences:
                raise ConfigError(f"seal: {'; '.join(differences[:3])}")
            async with followed_control(settings, stop, status) as table:
                signer, section = LogSigner(settings.keys.log_key, table.control), settings.seal
                context = SealContext(
                    kafka, table.control.generation, signer, store, offsets, section.batch, section.interval_ms
                )
                group = ConsumerGroup(kafka, "sluice-seal-workers", "decisions", settings.kafka.instance)
                await share(group, lambda p, s: status.told(SealPartition(context, p), s), stop, assign, status)
    finally:
        await offsets.close()
        store.close()
