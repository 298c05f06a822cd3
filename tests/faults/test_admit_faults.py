"""ADMIT when a write is not confirmed, dispatch breaks off, an old owner's batch lands late, or the log was cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaTimeoutError, RequestTimedOutError

from pipeline.admit.partition import AdmitPartition
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal, Retryable
from pipeline.events.codec import decode
from pipeline.events.messages import Work
from pipeline.events.records import Decision, LogRecord, Outcome, SnapshotMark
from pipeline.kafka import clients as kafka_clients
from pipeline.kafka.clients import make_admin
from tests.admit_site import Writers, history, read, report, until_answered
from tests.faults.ack_thief import AckThief
from tests.patience import STUCK_S, looks


class Killed(Exception):
    """Stands for the end of the process at this very point."""


async def settled(site: Any, writers: Writers, before: int, count: int) -> list[LogRecord]:
    """All of ``count`` new requests decided once and dispatched; completions sent; each with its one outcome."""
    records = await until_answered(site.bootstrap, before + count)
    mine = [r for r in records if isinstance(r, Decision)][before:]
    assert len({d.facts.offset for d in mine}) == len(mine) == count
    wanted = {d.request for d in mine if d.verdict == "admit"}
    for _ in looks():
        if wanted <= {decode(Work, item.value).request for item in await read(site.bootstrap, "work")}:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("admitted requests were never dispatched")
    await report(site, writers.publisher, records)
    for _ in looks():
        records = await history(site.bootstrap)
        ended = [r.request for r in records if isinstance(r, Outcome)]
        if wanted <= set(ended):
            break
        await asyncio.sleep(0.1)
    assert wanted <= set(ended)
    assert len(ended) == len(set(ended))
    return records


async def decided(site: Any) -> int:
    return sum(isinstance(r, Decision) for r in await history(site.bootstrap))


def flaky(monkeypatch: pytest.MonkeyPatch, fault: Callable[[str, int], Exception | None]) -> list[str]:
    """Producers whose batches fail as ``fault(topic, nth)`` says, every other one after it has landed.

    Gives the topics of failures.
    """
    met: list[str] = []
    counts: dict[str, int] = {}

    class Flaky(AIOKafkaProducer):  # type: ignore[misc]
        async def send_batch(self, builder: Any, topic: str, *, partition: int) -> Any:
            counts[topic] = counts.get(topic, 0) + 1
            error = fault(topic, counts[topic])
            if error is None:
                return await super().send_batch(builder, topic, partition=partition)
            if len(met) % 2:
                await (await super().send_batch(builder, topic, partition=partition))
            met.append(topic)
            raise error

    monkeypatch.setattr(kafka_clients, "AIOKafkaProducer", Flaky)
    return met


def test_lost_acknowledgements_double_and_lose_nothing(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    lost: list[int] = []

    class Deaf(AIOKafkaProducer):  # type: ignore[misc]
        async def send_batch(self, builder: Any, topic: str, *, partition: int) -> Any:
            sent = await super().send_batch(builder, topic, partition=partition)
            nonlocal written
            written += topic == "decisions"
            return self._lose(sent) if topic == "decisions" and written % 2 else sent

        async def _lose(self, sent: Awaitable[Any]) -> None:
            lost.append((await sent).offset)
            raise RequestTimedOutError

    monkeypatch.setattr(kafka_clients, "AIOKafkaProducer", Deaf)

    async def scene() -> None:
        before = await decided(deployment)
        async with Writers(deployment) as writers:
            writers.start()
            for at in range(0, 60, 10):
                await writers.produce("acme", [f"lost-{n}" for n in range(at, at + 10)], at + 1, session="lost")
                await asyncio.sleep(0.1)
            await settled(deployment, writers, before, 60)
        assert lost, "no acknowledgement was lost, so this showed nothing"

    asyncio.run(scene())


@pytest.mark.parametrize("topic", ["decisions", "work"])
def test_acknowledgements_that_the_network_swallows_double_and_lose_nothing(deployment: Any, topic: str) -> None:
    thief = AckThief(int(deployment.bootstrap.rpartition(":")[2]), topic, every=2)

    async def scene() -> None:
        before = await decided(deployment)
        async with thief.between(), Writers(deployment) as writers:
            writers.start()
            for at in range(0, 60, 10):
                names = [f"swallowed-{topic}-{n}" for n in range(at, at + 10)]
                await writers.produce("acme", names, at + 1, session=f"swallowed-{topic}")
                await asyncio.sleep(0.2)
            await settled(deployment, writers, before, 60)

    asyncio.run(scene())
    assert thief.stolen >= 2, "no acknowledgement was swallowed, so this showed nothing"


def test_dispatch_that_fails_in_the_middle_is_done_again(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    met = flaky(monkeypatch, lambda topic, n: KafkaTimeoutError() if topic == "work" and n in (1, 2, 3) else None)

    async def scene() -> None:
        before = await decided(deployment)
        async with Writers(deployment) as writers:
            writers.start()
            await writers.produce("acme", [f"middle-{n}" for n in range(20)], 1, session="middle")
            await settled(deployment, writers, before, 20)
        assert len(met) >= 2

    asyncio.run(scene())


def test_whoever_takes_over_dispatches_what_a_dead_worker_did_not(
    deployment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = flaky(monkeypatch, lambda topic, n: Killed() if topic == "work" and n == 1 else None)

    async def scene() -> None:
        before = await decided(deployment)
        async with Writers(deployment) as writers:
            await writers.produce("acme", [f"dead-{n}" for n in range(20)], 1, session="dead")
            writers.start()
            with pytest.raises(Killed):
                await asyncio.wait_for(writers.tasks[0], STUCK_S)
            writers.start()
            await settled(deployment, writers, before, 20)
        assert met == ["work"]

    asyncio.run(scene())


def test_a_batch_that_lands_on_an_idle_new_owner_is_acted_on(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        before = await decided(deployment)
        async with Writers(deployment) as writers:
            old, idle = writers.start(), writers.start()
            await asyncio.sleep(1)
            monkeypatch.setattr(idle._requests, "fill", _nothing)

            async def dies(*_: object) -> None:
                raise Killed

            # written, then gone before it acts; the other has nothing of its own to write
            monkeypatch.setattr(old, "_act", dies)
            await writers.produce("acme", [f"idle-{n}" for n in range(20)], 1, session="idle")
            with pytest.raises(Killed):
                await asyncio.wait_for(writers.tasks[0], STUCK_S)
            monkeypatch.undo()
            await settled(deployment, writers, before, 20)

    asyncio.run(scene())


def test_an_error_after_newcomers_were_folded_loses_none_of_them(
    deployment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        before = await decided(deployment)
        async with Writers(deployment) as writers:
            writers.start()
            await asyncio.sleep(1)
            slow = writers.start()
            await asyncio.sleep(1)
            faults = _broker_goes_after_the_fold(slow, monkeypatch)
            monkeypatch.setattr(slow._requests, "fill", _nothing)
            monkeypatch.setattr(writers.workers[0], "_act", _never)
            await writers.produce("acme", [f"fold-{n}" for n in range(10)], 1, session="fold")
            await settled(deployment, writers, before, 10)
            writers.tasks[0].cancel()
            assert faults

    asyncio.run(scene())


async def _nothing(*_: object) -> None:
    """Opens no requests."""


async def _never(*_: object) -> None:
    await asyncio.Event().wait()


def _broker_goes_after_the_fold(worker: AdmitPartition, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first time that ``worker`` has folded something, the question whether there is more has no answer."""
    log, faults, folded = worker._history._log, list[str](), list[int]()
    behind, catch_up = log.behind, log.catch_up

    async def asked() -> bool:
        if folded and not faults:
            faults.append("behind")
            raise Retryable("the broker is away")
        return await behind()

    async def caught_up(limit: int = 20_000) -> Any:
        found = await catch_up(limit)
        folded.append(len(found))
        return found

    monkeypatch.setattr(log, "behind", asked)
    monkeypatch.setattr(log, "catch_up", caught_up)
    return faults


async def cut(bootstrap: str, before: int) -> None:
    """DeleteRecords on decisions[0]: what retention does."""
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        await admin.delete_records({TopicPartition("decisions", 0): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


def test_after_retention_a_snapshot_that_reaches_serves_and_none_refuses(deployment: Any) -> None:
    async def scene() -> None:
        before = await decided(deployment)
        async with Writers(deployment, snapshot_every=100) as writers:
            writers.start()
            await writers.produce("acme", [f"kept-{n}" for n in range(120)], 1, session="kept")
            records = await settled(deployment, writers, before, 120)
        marks = [r for r in records if isinstance(r, SnapshotMark)]
        assert marks
        await cut(deployment.bootstrap, marks[-1].position)
        async with Writers(deployment) as writers:
            worker = writers.start()
            await asyncio.sleep(2)
            assert not writers.tasks[0].done()
            assert not worker._history.ledger.open
        end = (await read(deployment.bootstrap, "decisions"))[-1].offset + 1
        await cut(deployment.bootstrap, end)
        async with Writers(deployment) as writers:
            writers.start()
            with pytest.raises(Fatal, match="no snapshot reaches that far: its ledger cannot be rebuilt"):
                await asyncio.wait_for(writers.tasks[0], STUCK_S)

    asyncio.run(scene())
