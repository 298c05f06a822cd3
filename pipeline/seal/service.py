"""The seal process: settings to a running sealer."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import control_of, retry_until
from pipeline.errors import ConfigError
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.kafka.offsets import Offsets
from pipeline.keys.files import load_log_keys


async def seal(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.clickhouse.store import ClickHouseStore
    from pipeline.seal.partition import SealContext, SealPartition

    bootstrap, ours, store = settings.kafka.bootstrap, settings.seal, settings.clickhouse
    keys = load_log_keys(settings.keys.log_key)
    clickhouse = ClickHouseStore(store.url, store.user, store.password.get_secret_value(), store.database)
    await retry_until(lambda: asyncio.to_thread(clickhouse.connect))
    differences = await asyncio.to_thread(clickhouse.check_tables)
    if differences:
        raise ConfigError(f"seal: {'; '.join(differences[:3])}")
    offsets = Offsets(bootstrap)
    try:
        async with control_of(settings) as feed:
            context = SealContext(
                bootstrap, feed.control.generation, keys, clickhouse, offsets, ours.batch, ours.interval_ms
            )
            group = ConsumerGroup(bootstrap, "sluice-seal-workers", "decisions", settings.kafka.instance)
            await share(group, lambda p, s: SealPartition(context, p).run(s), stop, assign)
    finally:
        await offsets.close()
        clickhouse.close()
