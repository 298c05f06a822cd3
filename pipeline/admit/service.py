"""The admit process: settings to a running stage."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control, stage_clients
from pipeline.kafka.membership import Assign, ConsumerGroup, share
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.status_server import served_status


async def admit(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.admit.metrics import AdmitMetrics
    from pipeline.admit.partition import AdmitContext, AdmitPartition
    from pipeline.admit.screener import Screener

    kafka = settings.kafka.endpoint
    opening = stage_clients(kafka, "sluice-admit", "requests", stop)
    async with Screener() as screener, followed_control(settings, stop) as table, opening as clients:
        vault = Vault(FileKeyring(settings.keys.keyring), table.control)
        status, metrics, section = WorkerStatus("admit"), AdmitMetrics(), settings.admit
        context = AdmitContext(
            kafka, table, vault, screener.screen, *clients, section.snapshot_every, status.clock_watch, metrics.count
        )
        group = ConsumerGroup(kafka, "sluice-admit-workers", "requests", settings.kafka.instance)

        def render() -> bytes:
            return metrics.render() + status.render()

        async with served_status(section.metrics_host, section.metrics_port, status.faults, render):
            await share(group, lambda p, s: AdmitPartition(context, p).run(s), stop, assign, status)
