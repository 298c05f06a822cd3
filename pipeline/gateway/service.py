"""The gateway process: settings to a running HTTP server."""

from __future__ import annotations

import asyncio

from pipeline.config import Settings
from pipeline.control.connect import followed_control
from pipeline.kafka.membership import Assign
from pipeline.process_status import ProcessStatus
from pipeline.status_server import served_status


async def gateway(settings: Settings, stop: asyncio.Event, assign: Assign = ()) -> None:
    """Run the gateway until ``stop`` is set."""
    async with served_status(settings, ProcessStatus("gateway")) as status:
        async with followed_control(settings, stop):
            pass
        await _serve(settings, stop, status)


async def _serve(settings: Settings, stop: asyncio.Event, status: ProcessStatus) -> None:
    from pipeline.gateway.app import run
    from pipeline.gateway.settings import Bounds, GatewaySettings

    section = settings.gateway
    await run(
        GatewaySettings(
            kafka=settings.kafka.endpoint,
            keyring=settings.keys.keyring,
            pin=settings.keys.pin,
            host=section.host,
            port=section.port,
            reply_partition=section.lane,
            advertised_bootstrap=section.advertised_bootstrap,
            advertised_protocol=section.advertised_protocol,
            advertised_mechanism=section.advertised_mechanism,
            certificate_file=section.certificate_file,
            key_file=section.key_file,
            bounds=Bounds(connections=section.connections, address_connections=section.address_connections),
        ),
        stop,
        status=status,
    )
