"""The admit process: settings to a running stage."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control, stage_clients
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.metrics import ADMIT, Meters
from pipeline.status_server import served_status


async def admit(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.admit.partition import AdmitContext, AdmitPartition
    from pipeline.admit.screener import Screener

    kafka, section = settings.kafka.endpoint, settings.admit
    opening = stage_clients(kafka, "sluice-admit", "requests", stop)
    async with (
        served_status(settings, WorkerStatus("admit")) as status,
        Screener() as screener,
        followed_control(settings, stop, status) as table,
        opening as clients,
    ):
        vault, meters = Vault(FileKeyring(settings.keys.keyring), table.control), Meters(ADMIT)
        status.renderers.append(meters.render)
        context = AdmitContext(
            kafka, table, vault, screener.screen, *clients, section.snapshot_every, status.clock_watch, meters.count
        )
        group = ConsumerGroup(kafka, "sluice-admit-workers", "requests", settings.kafka.instance)
        await share(group, lambda p, s: status.told(AdmitPartition(context, p), s), stop, assign, status)
