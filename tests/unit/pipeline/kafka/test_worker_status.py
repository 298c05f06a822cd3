"""A partition that ended is shown, and taken again where that does no harm; the others go on."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from pipeline.config import Settings
from pipeline.embedded.supervisor import free_port
from pipeline.errors import Fatal, Stopped, Unrecoverable
from pipeline.kafka import membership
from pipeline.kafka.membership import PartitionTasks
from pipeline.kafka.worker_status import WorkerStatus
from pipeline.metrics import WORKER
from pipeline.sections import Status
from pipeline.status_server import served_status
from tests.patience import looks


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "AGAIN_S", 0.01)
    monkeypatch.setattr(membership, "LASTING_S", 0.01)


def played(act: Any) -> None:
    asyncio.run(asyncio.wait_for(act(), 20))


def test_a_partition_that_ended_by_fatal_is_taken_again_and_the_others_go_on() -> None:
    served: list[int] = []
    seen: list[list[str]] = []

    async def scene() -> None:
        status, back = WorkerStatus("admit"), asyncio.Event()

        async def serve(partition: int, stop: asyncio.Event) -> None:
            served.append(partition)
            seen.append(status.faults())
            if partition == 1 and served.count(1) < 3:
                raise Fatal("its log is broken")
            if partition == 1:
                back.set()
            await stop.wait()

        partitions = PartitionTasks(serve, status)
        partitions.keep([0, 1])
        await back.wait()
        for _ in looks():
            if not status.faults():
                break
            await asyncio.sleep(0.005)
        assert not partitions.failed.is_set()
        await partitions.close()

    played(scene)
    assert (served.count(0), served.count(1)) == (1, 3)
    assert ["admit[1] is not served: its log is broken"] in seen


def test_a_log_that_was_cut_is_not_begun_anew_also_after_a_rebalance() -> None:
    served: list[int] = []

    async def scene() -> None:
        status = WorkerStatus("admit")

        async def serve(partition: int, stop: asyncio.Event) -> None:
            served.append(partition)
            if partition == 1:
                raise Unrecoverable("the log was truncated")
            await stop.wait()

        partitions = PartitionTasks(serve, status)
        partitions.keep([0, 1])
        for _ in looks():
            if status.is_ended(1):
                break
            await asyncio.sleep(0.005)
        partitions.keep([0])
        partitions.keep([0, 1])
        await asyncio.sleep(0.1)
        assert status.faults() == ["admit[1] is not served: the log was truncated"]
        assert not partitions.failed.is_set()
        with pytest.raises(Unrecoverable):
            await partitions.close()

    played(scene)
    assert served == [0, 1]


def test_the_port_says_which_partition_is_not_served_and_why() -> None:
    async def scene() -> None:
        status, port = WorkerStatus("admit"), free_port()
        serving = served_status(Settings(status=Status(port=port)), status)
        async with serving, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            async with http.get("/readyz") as answer:
                assert (answer.status, await answer.json()) == (503, {"ready": False, "faults": ["admit: starting"]})
            status.starting = False
            async with http.get("/readyz") as answer:
                assert (answer.status, await answer.json()) == (200, {"ready": True, "faults": []})
            status.serves(2)
            status.ended(3, Fatal("its log is broken"))
            status.ended(3, Fatal("its log is broken"))
            async with http.get("/readyz") as answer:
                assert answer.status == 503
                assert (await answer.json())["faults"] == ["admit[3] is not served: its log is broken"]
            async with http.get("/metrics") as answer:
                text = await answer.text()
            async with http.get("/healthz") as answer:
                assert answer.status == 200
        for metric in WORKER:
            assert f"# TYPE {metric.name.removesuffix('_total')}" in text
        assert "sluice_worker_partitions_ended 1.0" in text
        assert "sluice_worker_endings_total 2.0" in text
        status.recovered(3)
        assert status.faults() == []

    played(scene)


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    status = WorkerStatus("seal")
    for _ in range(4):
        status.ended(0, Fatal("one reason"))
    status.ended(0, Fatal("another"))
    assert [record.message for record in caplog.records] == [
        "seal[0] is not served: one reason",
        "seal[0] is not served: another",
    ]


def test_a_worker_waits_until_its_clock_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        status, stop = WorkerStatus("admit"), asyncio.Event()
        behind = [True, True, False]
        monkeypatch.setattr(type(status.clock_watch), "behind", property(lambda _: behind.pop(0)))
        waiting = asyncio.create_task(status.clock_is_right(stop))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "behind its peers" in status.faults()[0]
        await waiting
        assert status.faults() == []
        monkeypatch.setattr(type(status.clock_watch), "behind", property(lambda _: True))
        stop.set()
        with pytest.raises(Stopped):
            await status.clock_is_right(stop)

    played(scene)
