"""The gateway process: settings to a running HTTP server."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import control_of
from pipeline.kafka.membership import Assign


async def gateway(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    from pipeline.gateway.app import run
    from pipeline.gateway.settings import GatewaySettings

    ours = settings.gateway
    async with control_of(settings):
        pass
    await run(
        GatewaySettings(
            bootstrap=settings.kafka.bootstrap,
            keyring=settings.keys.keyring,
            host=ours.host,
            port=ours.port,
            lane=ours.lane,
            advertised_bootstrap=ours.advertised_bootstrap,
        ),
        stop,
    )
