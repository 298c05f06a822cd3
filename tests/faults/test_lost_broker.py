"""Writers and workers whose broker goes away: an error that says so, soon, and work again once it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inference.types import FinishReason
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.events.codec import decode
from pipeline.events.emission import Emission
from pipeline.events.ids import GRACE_MS
from pipeline.events.messages import Completion, Response, Work
from pipeline.generate.answer import AnswerStream
from pipeline.generate.guard import Guards
from pipeline.generate.partition import GeneratePartition
from pipeline.generate.step import Ended, Run, RunEvent
from pipeline.kafka import reader as kafka
from pipeline.kafka import shutdown as kafka_stop
from pipeline.kafka import writer as kafka_write
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.watch import faust_app as faust_watch
from tests.faults.fault_site import quiet_port
from tests.patience import STUCK_S


def test_a_publisher_outlives_its_broker_whoever_uses_it(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_write, "_WRITE_S", 1.0)
    monkeypatch.setattr(kafka_stop, "STOP_S", 0.5)

    async def scene() -> None:
        publisher = Publisher(deployment.kafka)
        record = ("dead_letters", 0, b"", b"x", ())
        await publisher.send_all([record])
        await asyncio.to_thread(deployment.broker.kill)
        # the second round meets a broker that refuses connections; the callers share one producer
        for _ in range(2):
            ends = await asyncio.gather(*(publisher.send_all([record]) for _ in range(4)), return_exceptions=True)
            assert {type(end) for end in ends} == {Retryable}
        await asyncio.to_thread(deployment.broker.start)
        await publisher.send_all([record])
        await publisher.close()

    asyncio.run(scene())


def test_without_a_broker_each_way_in_says_that_it_may_pass() -> None:
    nowhere = f"127.0.0.1:{quiet_port(set())}"

    async def scene() -> None:
        with pytest.raises(Retryable, match="no producer"):
            await Publisher(KafkaEndpoint(nowhere)).start()
        marks = CommittedOffsets(KafkaEndpoint(nowhere), "group", "requests")
        with pytest.raises(Retryable, match="no committed offsets"):
            await marks.start()
        await marks.close()
        with pytest.raises(Retryable, match="did not start"):
            await faust_watch.run(KafkaEndpoint(nowhere), asyncio.Event())

    asyncio.run(scene())


def test_a_reader_whose_fetching_stands_still_reads_anew(deployment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "STALL_S", 0.3)

    async def scene() -> list[bytes]:
        publisher, reader = Publisher(deployment.kafka), PartitionReader(deployment.kafka, "dead_letters", 0)
        await reader.start(None)
        await publisher.send("dead_letters", 0, b"", b"first")
        found = await reader.read_to_end()
        reader._consumer._fetcher._fetch_task.cancel()
        await publisher.send_all([("dead_letters", 0, b"", value, ()) for value in (b"second", b"third")])
        found += await reader.read_to_end()
        await reader.close()
        await publisher.close()
        return [item.value for item in found]

    assert asyncio.run(asyncio.wait_for(scene(), STUCK_S)) == [b"first", b"second", b"third"]


Generated = Callable[[GeneratePartition, Work, str], Coroutine[Any, Any, RunEvent]]


def ran(left_ms: int, generated: Generated) -> list[Emission]:
    """What leaves of one run whose request has ``left_ms`` left, everything around the run a stand-in."""
    sent: list[Emission] = []

    async def written(emission: Emission) -> None:
        sent.append(emission)

    async def scene() -> None:
        sender = SimpleNamespace(written=written, put=sent.append)
        control = SimpleNamespace(require_deployment=lambda: SimpleNamespace(partitions=1))
        context = SimpleNamespace(
            kafka=KafkaEndpoint("127.0.0.1:1"),
            worker="w",
            attempts=0,
            topic="work",
            offsets=object(),
            sender=sender,
            reports=sender,
            slots=asyncio.Semaphore(1),
            observe=lambda completion, usage: None,
            control_table=SimpleNamespace(control=control),
        )
        partition = GeneratePartition(cast(Any, context), 0)
        work = Work("g-0-1", 0, "acme", "acme", "acme-app", "acme-app:1", 0, int(time.time() * 1000) + left_ms)
        partition._generate = partial(generated, partition)  # type: ignore[method-assign]
        await context.slots.acquire()
        await partition._run(0, work)
        assert not context.slots.locked()

    asyncio.run(scene())
    return sent


@pytest.mark.parametrize(("left_ms", "told"), [(1_000, ["responses"]), (-GRACE_MS - 1_000, [])])
def test_an_end_is_told_only_while_the_request_cannot_have_expired(left_ms: int, told: list[str]) -> None:
    """A worker that wakes up late may have written its completion after admit wrote the outcome ``expired``."""

    async def generated(partition: GeneratePartition, work: Work, attempt: str) -> RunEvent:
        partition._step(Run(work, attempt, AnswerStream(work, attempt, "w", lambda name, raw: raw, Guards(()))))
        return Ended(work.request, FinishReason.STOP)

    assert [emission.topic for emission in ran(left_ms, generated)] == ["completions", *told]


def test_a_fault_of_the_worker_fails_its_request_at_once_and_quotes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def generated(partition: GeneratePartition, work: Work, attempt: str) -> RunEvent:
        raise ValueError("the caller's secret words")

    completion, end = ran(1_000, generated)
    assert decode(Completion, completion.value).result == "failed"
    assert decode(Response, end.value).result == "failed"
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text
