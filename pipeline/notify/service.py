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

    async with (
        served_status(settings, WorkerStatus("notify")) as status,
        followed_control(settings, stop, status) as table,
    ):
        vault = Vault(FileKeyring(settings.keys.keyring), table.control)
        chosen = NotifySettings(
            allow_private=settings.notify.allow_private,
            timeout_s=settings.notify.timeout_s,
            instance=settings.kafka.instance,
        )
        await run(settings.kafka.endpoint, table, vault, chosen, stop, assign, status)
