"""One clock is wrong by an hour or a minute, on a real broker: nothing is refused, nothing expires, and it is said."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pipeline.events.records import AHEAD_MS, Decision, Outcome, Tick, time_of
from tests.admit_site import history, valid
from tests.stack.clock_play import ClockedWorker, Requests, faults_of

HOUR_MS = 3_600_000


@pytest.mark.parametrize("ahead_ms", [-HOUR_MS, HOUR_MS])
def test_a_broker_whose_clock_is_wrong_is_served_by_workers_and_senders_that_agree(
    deployment: Any, ahead_ms: int
) -> None:
    """Seen from here all of them are wrong by the same; seen from there the broker is.

    First of this file: later the log has times that senders who are behind cannot have agreed to.
    """

    async def scene() -> None:
        name = f"broker{ahead_ms}"
        worker, requests = ClockedWorker(deployment, name, ahead_ms, "0"), Requests(deployment, name)
        try:
            for _ in range(3):
                await requests.ask(ahead_ms)
            decisions = await requests.answered([worker])
            await worker.until_ready(False, "the broker's clock is 3600 s")
        finally:
            worker.stop()
            await requests.close()
        assert {(d.verdict, d.reasons) for d in decisions} == {("admit", ())}
        assert await faults_of(deployment) == []

    asyncio.run(scene())


def test_a_worker_one_hour_fast_refuses_nothing_and_expires_nothing(deployment: Any) -> None:
    async def scene() -> None:
        worker, requests = ClockedWorker(deployment, "fast", HOUR_MS, "0"), Requests(deployment, "fast")
        try:
            for _ in range(14):
                await requests.ask()
                await asyncio.sleep(1)
            decisions = await requests.answered([worker])
            told = await worker.until_ready(False, "the broker's clock is 3600 s behind")
            assert len(told["faults"]) == 1
            assert abs(await worker.metric("sluice_worker_clock_apart_seconds") - 3600) < 60
        finally:
            worker.stop()
            await requests.close()
        assert [d.verdict for d in decisions] == ["admit"] * 14
        records = await history(deployment.bootstrap)
        assert not [r for r in records if isinstance(r, Outcome)], "an open request was expired"
        ticks = [r for r in records if isinstance(r, Tick)]
        assert 3 <= len(ticks) <= 60
        assert max(time_of(d) for d in decisions) <= time.time() * 1000 + AHEAD_MS
        assert await faults_of(deployment) == []
        assert worker.log().count("the broker's clock is") == 1, "told once, not per request"

    asyncio.run(scene())


def test_a_worker_one_minute_slow_serves_says_so_and_is_well_when_its_clock_is(deployment: Any) -> None:
    async def scene() -> None:
        worker, requests = ClockedWorker(deployment, "slow", -60_000, "0"), Requests(deployment, "slow")
        try:
            for _ in range(3):
                await requests.ask()
            decisions = await requests.answered([worker])
            await worker.until_ready(False, "the broker's clock is 60 s ahead of this worker's; set the clocks (NTP)")
            worker.set_clock(0)
            await worker.until_ready(True)
            await requests.ask()
            decisions = await requests.answered([worker])
        finally:
            worker.stop()
            await requests.close()
        assert {d.verdict for d in decisions} == {"admit"}
        assert await faults_of(deployment) == []

    asyncio.run(scene())


def test_a_worker_whose_clock_jumps_both_ways_answers_everything(deployment: Any) -> None:
    async def scene() -> None:
        worker, requests = ClockedWorker(deployment, "jumps", 0, "0"), Requests(deployment, "jumps")
        try:
            for ahead_ms in (0, HOUR_MS, 0, -60_000, 0):
                worker.set_clock(ahead_ms)
                await requests.ask()
                decisions = await requests.answered([worker])
            await worker.until_ready(True)
        finally:
            worker.stop()
            await requests.close()
        assert {d.verdict for d in decisions} == {"admit"}
        times = [time_of(d) for d in decisions]
        assert times == sorted(times)
        appended = {entry.value: entry.time for entry in await valid(deployment.bootstrap)}
        assert max(times) <= max(appended.values()) + AHEAD_MS
        assert await faults_of(deployment) == []

    asyncio.run(scene())


def test_a_worker_behind_its_peers_gives_its_partitions_up_and_comes_back(deployment: Any) -> None:
    async def scene() -> None:
        right, requests = ClockedWorker(deployment, "right", 0), Requests(deployment, "peers")
        slow = peer = None
        try:
            await requests.ask()
            await requests.answered([right])
            right.stop()
            slow = ClockedWorker(deployment, "behind", -60_000)
            await requests.ask()
            await requests.answered([slow])
            # alone it serves on and says so; with a peer in the group it leaves the partition to that one
            await slow.until_ready(False, "60 s ahead of this worker's")
            assert "gave its partitions up" not in slow.log()
            peer = ClockedWorker(deployment, "peer", 0)
            await slow.until_ready(False, "this worker's clock is behind its peers; it gave its partitions up")
            assert await slow.metric("sluice_worker_clock_behind") == 1
            await requests.ask()
            decisions = await requests.answered([slow, peer])
            assert decisions[-1].facts.time > time.time() * 1000 - 50_000
            slow.set_clock(0)
            await slow.until_ready(True)
        finally:
            for worker in (right, slow, peer):
                if worker is not None:
                    worker.stop()
            await requests.close()
        assert {d.verdict for d in decisions if isinstance(d, Decision)} == {"admit"}
        assert await faults_of(deployment) == []

    asyncio.run(scene())
