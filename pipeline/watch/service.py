"""The watch process: settings to a running Faust application."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control
from pipeline.kafka.membership import Assign
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.status_server import served_status


async def watch(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.watch.faust_app import run

    async with served_status(settings, WorkerStatus("watch")) as status, followed_control(settings, stop, status):
        await run(settings.kafka.endpoint, stop, settings.kafka.instance, status)
