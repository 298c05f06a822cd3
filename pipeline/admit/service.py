"""The admit process: settings to a running stage."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control, stage_clients
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.keys.vault import FileKeyring, Vault


async def admit(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.admit.partition import AdmitContext, AdmitPartition
    from pipeline.admit.screener import Screener

    kafka = settings.kafka.endpoint
    opening = stage_clients(kafka, "sluice-admit", "requests", stop)
    async with Screener() as screener, followed_control(settings, stop) as table, opening as clients:
        vault = Vault(FileKeyring(settings.keys.keyring), table.control)
        context = AdmitContext(kafka, table, vault, screener.screen, *clients, settings.admit.snapshot_every)
        group = ConsumerGroup(kafka, "sluice-admit-workers", "requests", settings.kafka.instance)
        await share(group, lambda p, s: AdmitPartition(context, p).run(s), stop, assign)
