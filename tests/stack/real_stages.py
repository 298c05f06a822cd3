"""Gateway, admit and generate as they run in production, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pipeline.config import Settings
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.kafka.reader import PartitionReader
from pipeline.sections import Status
from pipeline.wiring import STAGES
from tests.patience import STUCK_S
from tests.stack.gateway_site import answering


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[None]:
    """Until the block ends; what ended a stage before is raised then. Of them, admit has the port of the settings."""
    stop = asyncio.Event()
    mute = settings.model_copy(update={"status": Status()})
    of = {"gateway": mute, "admit": settings, "generate": mute}
    stages = [asyncio.create_task(STAGES[name](own, stop)) for name, own in of.items()]
    try:
        await answering(f"http://127.0.0.1:{settings.gateway.port}", stages[0])
        yield
    finally:
        stop.set()
        await asyncio.gather(*stages)


async def settled(bootstrap: str, partitions: int) -> tuple[list[Decision], list[Outcome]]:
    """All of the log, once admit, which must be running, has heard of every end; the callers hear first."""
    async with asyncio.timeout(STUCK_S):
        while True:
            records = [record for partition in range(partitions) for record in await _log(bootstrap, partition)]
            decisions = [record for record in records if isinstance(record, Decision)]
            outcomes = [record for record in records if isinstance(record, Outcome)]
            to_run = [one for one in decisions if one.verdict == "admit" and one.facts.kind == "inference"]
            if len(outcomes) >= len(to_run):
                return decisions, outcomes
            await asyncio.sleep(0.2)


async def _log(bootstrap: str, partition: int) -> list[LogRecord]:
    reader = PartitionReader(KafkaEndpoint(bootstrap), "decisions", partition)
    await reader.start(0)
    try:
        return [decode_log(item.value) for item in await reader.read_to_end()]
    finally:
        await reader.close()
