"""The admit process: settings to a running stage."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import control_of, opened_of
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.keys.vault import FileKeyring, Vault


async def admit(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.admit.partition import AdmitContext, AdmitPartition
    from pipeline.admit.screener import Screener

    bootstrap, opened = settings.kafka.bootstrap, opened_of(settings.kafka.bootstrap, "sluice-admit", "requests")
    async with Screener() as screener, control_of(settings) as feed, opened as opened_parts:
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        context = AdmitContext(bootstrap, feed, vault, screener.screen, *opened_parts, settings.admit.snapshot_every)
        group = ConsumerGroup(bootstrap, "sluice-admit-workers", "requests", settings.kafka.instance)
        await share(group, lambda p, s: AdmitPartition(context, p).run(s), stop, assign)
