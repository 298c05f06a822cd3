"""The notify process: settings to a running outbox."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control
from pipeline.kafka.membership import Assign
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.keys.vault import FileKeyring, Vault
from pipeline.status_server import served_status


async def notify(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.notify.worker import NotifySettings, run

    async with followed_control(settings, stop) as table:
        vault = Vault(FileKeyring(settings.keys.keyring), table.control)
        chosen = NotifySettings(
            allow_private=settings.notify.allow_private,
            timeout_s=settings.notify.timeout_s,
            instance=settings.kafka.instance,
        )
        status, section = WorkerStatus("notify"), settings.notify
        async with served_status(section.metrics_host, section.metrics_port, status.faults, status.render):
            await run(settings.kafka.endpoint, table, vault, chosen, stop, assign, status)
