"""The embedded Kafka broker, for real: clients, restarts, crashes and refusals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from pipeline.config import cache
from pipeline.embedded import class_archive
from pipeline.embedded.broker import EmbeddedBroker, _cluster_id
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.jars import cached_jars
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError
from pipeline.kafka.clients import make_admin, make_consumer, make_producer
from tests.patience import STUCK_S

CACHE = cache()


def settings(home: Path) -> BrokerSettings:
    return BrokerSettings(home=home, cache=CACHE, port=free_port(), controller_port=free_port())


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    supervisor = Supervisor()
    broker = EmbeddedBroker(settings(tmp_path_factory.mktemp("broker")), supervisor)
    broker.ensure_fetched(print)
    broker.start()
    yield broker
    supervisor.stop_all()


async def create(bootstrap: str, topic: str) -> None:
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with make_producer(KafkaEndpoint(bootstrap)) as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = make_consumer(
        KafkaEndpoint(bootstrap),
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    async with consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        got: list[bytes] = []
        async with asyncio.timeout(STUCK_S):
            while len(got) < count:
                message = await consumer.getone()
                got.append(message.value or b"")
        return got


def test_records_come_back_in_order(broker: EmbeddedBroker) -> None:
    async def run() -> list[bytes]:
        await create(broker.bootstrap, "order")
        await produce(broker.bootstrap, "order", [b"a", b"b", b"c"])
        return await consume(broker.bootstrap, "order", 3)

    assert asyncio.run(run()) == [b"a", b"b", b"c"]


def test_aborted_transactions_stay_invisible(broker: EmbeddedBroker) -> None:
    async def run() -> list[bytes]:
        await create(broker.bootstrap, "tx")
        producer = make_producer(KafkaEndpoint(broker.bootstrap), transactional_id="t-0")
        async with producer:
            for value in (b"gone", b"kept"):
                await producer.begin_transaction()
                await (await producer.send("tx", value, partition=0))
                if value == b"gone":
                    await producer.abort_transaction()
                else:
                    await producer.commit_transaction()
        return await consume(broker.bootstrap, "tx", 1)

    assert asyncio.run(run()) == [b"kept"]


def test_consumer_group_gets_committed_offset_back(broker: EmbeddedBroker) -> None:
    async def read_one() -> bytes:
        consumer = make_consumer(KafkaEndpoint(broker.bootstrap), group_id="readers", auto_offset_reset="earliest")
        consumer.subscribe(["group-topic"])
        async with consumer:
            async with asyncio.timeout(STUCK_S):
                message = await consumer.getone()
            await consumer.commit({TopicPartition("group-topic", 0): message.offset + 1})
            return message.value or b""

    async def run() -> list[bytes]:
        await create(broker.bootstrap, "group-topic")
        await produce(broker.bootstrap, "group-topic", [b"first", b"second"])
        return [await read_one(), await read_one()]

    assert asyncio.run(run()) == [b"first", b"second"]


def test_records_survive_restart_and_kill(broker: EmbeddedBroker) -> None:
    asyncio.run(create(broker.bootstrap, "kept"))
    asyncio.run(produce(broker.bootstrap, "kept", [b"before"]))
    broker.stop()
    broker.start()
    asyncio.run(produce(broker.bootstrap, "kept", [b"between"]))
    broker.kill()
    broker.start()
    assert asyncio.run(consume(broker.bootstrap, "kept", 2)) == [b"before", b"between"]


def test_topics_are_never_created_by_accident(broker: EmbeddedBroker) -> None:
    async def run() -> set[str]:
        admin = make_admin(KafkaEndpoint(broker.bootstrap))
        await admin.start()
        try:
            await admin.describe_topics(["nobody-made-me"])
            return set(await admin.list_topics())
        finally:
            await admin.close()

    assert "nobody-made-me" not in asyncio.run(run())


def test_second_start_needs_no_network(broker: EmbeddedBroker) -> None:
    said: list[str] = []
    broker.ensure_fetched(said.append)
    assert said == []
    assert len(cached_jars(CACHE)) > 30


def test_classes_are_loaded_from_their_archive(broker: EmbeddedBroker, tmp_path: Path) -> None:
    jars = cached_jars(CACHE)
    archive = class_archive.place(CACHE, broker._java(jars), jars)
    end = time.monotonic() + 2 * class_archive.MAKE_TIMEOUT_S
    while not archive.exists() and time.monotonic() < end:
        # another process is making it
        time.sleep(0.2)
    supervisor = Supervisor()
    with_archive = EmbeddedBroker(settings(tmp_path / "prepared"), supervisor)
    with_archive.start()
    try:
        assert str(archive) in Path(f"/proc/{with_archive.pid}/maps").read_text()
    finally:
        supervisor.stop_all()


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = BrokerSettings(home=tmp_path, cache=CACHE, port=port, controller_port=free_port())
        with pytest.raises(ConfigError, match=rf"Kafka broker wants .*:{port}.*--kafka-port"):
            EmbeddedBroker(taken, Supervisor()).start()


PARENT = """
import sys, time
from pathlib import Path
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.supervisor import Supervisor
home, cache, port, controller = sys.argv[1:]
settings = BrokerSettings(Path(home), Path(cache), int(port), int(controller))
broker = EmbeddedBroker(settings, Supervisor())
broker.launch()
print(broker.pid, flush=True)
time.sleep(120)
"""


def test_killed_parent_takes_the_broker_along(tmp_path: Path) -> None:
    s = settings(tmp_path / "orphan")
    argv = [sys.executable, "-c", PARENT]
    argv += [str(part) for part in (s.home, s.cache, s.port, s.controller_port)]
    parent = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + STUCK_S
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)


def running(pid: int) -> bool:
    """Whether `pid` is there and no zombie that its foster parent has yet to collect."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip() != "" and not state.stdout.strip().startswith("Z")


def test_no_cluster_id_looks_like_an_option(tmp_path: Path) -> None:
    made = [_cluster_id(BrokerSettings(tmp_path, tmp_path, 1, 2)) for _ in range(2000)]
    made += [_cluster_id(BrokerSettings(tmp_path, tmp_path, 1, 2, voters=((1, "h", n),))) for n in range(2000)]
    assert not [name for name in made if name.startswith("-")]
    assert len(set(made)) == 4000
