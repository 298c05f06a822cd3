"""The admit process: settings to a running stage."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control, stage_clients
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.keys.vault import FileKeyring, Vault


async def admit(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.admit.metrics import AdmitMetrics
    from pipeline.admit.partition import AdmitContext, AdmitPartition
    from pipeline.admit.screener import Screener

    kafka = settings.kafka.endpoint
    opening = stage_clients(kafka, "sluice-admit", "requests", stop)
    async with Screener() as screener, followed_control(settings, stop) as table, opening as clients:
        vault = Vault(FileKeyring(settings.keys.keyring), table.control)
        section, metrics = settings.admit, AdmitMetrics()
        context = AdmitContext(
            kafka, table, vault, screener.screen, *clients, section.snapshot_every, count=metrics.count
        )
        group = ConsumerGroup(kafka, "sluice-admit-workers", "requests", settings.kafka.instance)
        async with metrics.served(section.metrics_host, section.metrics_port):
            await share(group, lambda p, s: AdmitPartition(context, p).run(s), stop, assign)
