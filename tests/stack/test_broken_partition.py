"""A partition whose log is broken is told by /readyz and taken again; the others of the process go on serving."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import HEADER, Position, links
from pipeline.events.codec import encode
from pipeline.events.records import DECIDER, Upgrade
from pipeline.kafka.writer import Publisher
from pipeline.topics import partition_of
from tests.deployment_site import Deployment, furnished
from tests.patience import looks
from tests.stack.clock_play import ClockedWorker, Requests


async def begin_with(kafka: KafkaEndpoint, values: dict[int, bytes]) -> None:
    """Write a first record that counts into ``decisions`` of these partitions."""
    publisher = Publisher(kafka)
    headers = [(HEADER, links(Position(), 1)[0])]
    await publisher.send_all([("decisions", partition, b"", value, headers) for partition, value in values.items()])
    await publisher.close()


async def scene(deployment: Deployment) -> None:
    tenant = next(t for t in deployment.keys if partition_of(t.encode(), 3) == 0)
    newer = encode(Upgrade(0, DECIDER, DECIDER + 1, 0))
    await begin_with(deployment.kafka, {1: b"no record", 2: newer})
    worker, requests = ClockedWorker(deployment, "broken", 0, "0,1,2"), Requests(deployment, "broken")
    try:
        await worker.until_ready(False, "admit[1] is not served: decisions[1] 0 is valid but unreadable")
        told = await worker.until_ready(False, f"admit[2] is not served: the log was lifted to decider {DECIDER + 1}")
        assert len(told["faults"]) == 2
        await requests.ask(partition=0, tenant=tenant)
        (decision,) = await requests.answered([worker])
        assert decision.verdict == "admit"
        for _ in looks():
            # the one is taken again, the other left to workers of the newer build
            if await worker.metric("sluice_worker_endings_total") >= 4:
                break
            await asyncio.sleep(0.1)
        assert await worker.metric("sluice_worker_partitions_ended") == 2
    finally:
        worker.stop()
        await requests.close()
    log = worker.log()
    assert log.count("admit[1] is not served") == 1
    assert log.count("admit[2] is not served") == 1


def test_a_broken_partition_is_told_and_the_others_are_served(tmp_path_factory: pytest.TempPathFactory) -> None:
    home: Path = tmp_path_factory.mktemp("broken")
    with furnished(home, 3) as deployment:
        asyncio.run(scene(deployment))
