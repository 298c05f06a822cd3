"""Partitions of a worker: a cancellation that nobody asked for must not leave one unserved."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline import retry
from pipeline.errors import ConfigError
from pipeline.kafka import membership
from pipeline.kafka import shutdown as kafka_stop
from pipeline.kafka.membership import PartitionTasks
from pipeline.kafka.shutdown import stop_consumer, stop_producer


def test_a_cancellation_from_within_has_the_partition_served_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.01)
    served: list[int] = []
    settled = asyncio.Event()

    async def serve(partition: int, stop: asyncio.Event) -> None:
        served.append(partition)
        if len(served) < 3:
            raise asyncio.CancelledError
        settled.set()
        await stop.wait()

    async def scene() -> None:
        partitions = PartitionTasks(serve)
        partitions.keep([7])
        await settled.wait()
        assert not partitions.failed.is_set()
        await partitions.close()

    asyncio.run(asyncio.wait_for(scene(), 10))
    assert served == [7, 7, 7]


def test_a_partition_that_a_library_ended_is_served_anew_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "AGAIN_S", 0.01)
    served: list[int] = []
    settled = asyncio.Event()

    async def serve(partition: int, stop: asyncio.Event) -> None:
        served.append(partition)
        if partition == 0:
            if served.count(0) == 1:
                # of uvloop, at a connection that a killed broker closed
                raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
            settled.set()
        await stop.wait()

    async def scene() -> None:
        partitions = PartitionTasks(serve)
        partitions.keep([0, 1])
        await settled.wait()
        assert not partitions.failed.is_set()
        await partitions.close()

    asyncio.run(asyncio.wait_for(scene(), 10))
    assert sorted(served) == [0, 0, 1]


def test_a_partition_that_breaks_is_told_when_the_worker_closes() -> None:
    async def serve(partition: int, stop: asyncio.Event) -> None:
        raise ConfigError("its log broke")

    async def scene() -> None:
        partitions = PartitionTasks(serve)
        partitions.keep([0])
        await partitions.failed.wait()
        with pytest.raises(ConfigError, match="its log broke"):
            await partitions.close()

    asyncio.run(asyncio.wait_for(scene(), 10))


async def _cancelled() -> None:
    raise asyncio.CancelledError


async def _never() -> None:
    await asyncio.Event().wait()


async def _fine() -> None:
    return


@pytest.mark.parametrize("end", [_cancelled, _never])
def test_a_client_that_does_not_end_well_leaves_its_owner_alone(end: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_stop, "STOP_S", 0.05)
    closed: list[str] = []

    async def closes(name: str) -> None:
        closed.append(name)

    async def scene() -> None:
        await stop_consumer(cast(Any, SimpleNamespace(stop=end)))
        inner = SimpleNamespace(close=lambda: closes("sender")), SimpleNamespace(close=lambda: closes("client"))
        await stop_producer(cast(Any, SimpleNamespace(stop=end, _sender=inner[0], client=inner[1])))
        await stop_producer(cast(Any, SimpleNamespace(stop=_fine)))

    asyncio.run(asyncio.wait_for(scene(), 10))
    assert closed == ["sender", "client"]
