"""The watch process: settings to a running Faust application."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control
from pipeline.kafka.membership import Assign


async def watch(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.watch.faust_app import run

    async with followed_control(settings, stop):
        await run(settings.kafka.endpoint, stop, settings.kafka.instance)
