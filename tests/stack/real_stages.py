"""Gateway, admit and generate as they run in production, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from doors_site import answering

from pipeline.config import Settings
from pipeline.wiring import STAGES


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Until the block ends; what ended a stage before is raised then."""
    stop = asyncio.Event()
    stages = [asyncio.create_task(STAGES[name](settings, stop)) for name in ("gateway", "admit", "generate")]
    try:
        await answering(f"http://127.0.0.1:{settings.gateway.port}", stages[0])
        yield
    finally:
        stop.set()
        await asyncio.gather(*stages)
