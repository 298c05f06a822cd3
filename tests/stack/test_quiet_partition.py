"""Retention takes a log in which nothing happens, marks and all; the newest snapshot must stay within it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from pipeline.admit import history as snapshots
from pipeline.events.codec import decode
from pipeline.events.messages import Work
from pipeline.kafka.clients import make_admin
from pipeline.topics import BY_NAME
from tests.admit_site import Writers, read, until_answered
from tests.patience import STUCK_S, looks


async def run(bootstrap: str) -> set[str]:
    """What workers are to run, by the client's id."""
    return {decode(Work, item.value).client_request for item in await read(bootstrap, "work")}


def test_a_quiet_partition_outlives_the_retention_of_its_log(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SNAPSHOT_MS", 2_000)

    async def scene() -> None:
        admin = make_admin(deployment.kafka)
        await admin.start()
        hurried = BY_NAME["decisions"].config(1) | {"retention.ms": "8000", "segment.ms": "1000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, "decisions", hurried)])
        await admin.close()
        async with asyncio.timeout(STUCK_S):
            async with Writers(deployment) as writers:
                writers.start()
                await writers.produce("acme", ["before"], 1, session="quiet")
                answered = len(await until_answered(deployment.bootstrap, 1))
                # what the first worker wrote is gone, and all that it knew with it
                for _ in looks():
                    if await writers.offsets.begin(TopicPartition("decisions", 0)) > answered:
                        break
                    await asyncio.sleep(0.5)
            async with Writers(deployment) as writers:
                writers.start()
                await writers.produce("acme", ["behind"], 2, session="quiet")
                for _ in looks():
                    if "behind" in await run(deployment.bootstrap):
                        return
                    await asyncio.sleep(0.2)
                raise AssertionError("the partition is not served again")

    asyncio.run(scene())
