"""The notify process: settings to a running outbox."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import control_of
from pipeline.kafka.membership import Assign
from pipeline.keys.vault import FileKeyring, Vault


async def notify(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.notify.worker import NotifySettings, run

    async with control_of(settings) as feed:
        vault = Vault(FileKeyring(settings.keys.keyring), feed.control)
        ours = NotifySettings(allow_private=settings.notify.allow_private, timeout_s=settings.notify.timeout_s)
        await run(settings.kafka.bootstrap, feed, vault, ours, stop)
