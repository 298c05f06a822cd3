"""The watch worker on a real broker: one alert per bucket, and a SIGKILL neither loses nor changes any."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import NewTopic

from detectors.base import Finding
from pipeline.config import cache
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, FindingEvent
from pipeline.kafka.clients import make_admin
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.topics import BY_NAME
from pipeline.watch import correlate as watch
from tests.patience import STUCK_S
from tests.stack.heeding import await_heeding

CACHE = cache()
WORKER = """
import asyncio, signal, sys
from pipeline.endpoints import KafkaEndpoint
from pipeline.watch.faust_app import run

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(KafkaEndpoint(sys.argv[1]), stop, sys.argv[2])

asyncio.run(main())
"""


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """A broker of its own per test, with one partition of findings and alerts each."""
    supervisor = Supervisor()
    broker = EmbeddedBroker(BrokerSettings(tmp_path, CACHE, free_port(), free_port()), supervisor)
    broker.ensure_fetched(print)
    broker.start()
    asyncio.run(_create(broker.bootstrap))
    yield broker.bootstrap
    supervisor.stop_all()


async def _create(bootstrap: str) -> None:
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        topics = [NewTopic(n, 1, 1, topic_configs=BY_NAME[n].config(1)) for n in ("findings", "alerts")]
        await admin.create_topics(topics)
    finally:
        await admin.close()


def worker(bootstrap: str, instance: str = "watch-0") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, bootstrap, instance])


def kill(process: subprocess.Popen[bytes], how: int = signal.SIGKILL) -> int:
    if how == signal.SIGTERM:
        await_heeding(process.pid, how)
    process.send_signal(how)
    return process.wait(STUCK_S)


def injection(tenant: str, n: int, at: int) -> FindingEvent:
    finding = Finding("injection.override.ignore-previous", 3, 90, 0, 4, "raw", 0)
    return FindingEvent(f"{tenant}-{n}", at, "org", tenant, "p1", "admit", "deny", ("injection",), (finding,))


async def send(bootstrap: str, events: list[FindingEvent]) -> None:
    publisher = Publisher(KafkaEndpoint(bootstrap))
    await publisher.start()
    try:
        await publisher.send_all([("findings", 0, b"org", encode(event), ()) for event in events])
    finally:
        await publisher.close()


async def read(bootstrap: str, topic: str) -> list[bytes]:
    reader = PartitionReader(KafkaEndpoint(bootstrap), topic, 0)
    try:
        await reader.start(0)
        return [item.value for item in await reader.read_to_end()]
    finally:
        await reader.close()


def alerts(bootstrap: str) -> list[Alert]:
    return [decode(Alert, value) for value in asyncio.run(read(bootstrap, "alerts"))]


def wait_for(bootstrap: str, holds: Callable[[list[Alert]], bool], timeout_s: float = STUCK_S) -> list[Alert]:
    end = time.monotonic() + timeout_s
    while not holds(found := alerts(bootstrap)):
        assert time.monotonic() < end, f"{len(found)} alerts after {timeout_s} s: {[(a.tenant, a.rule) for a in found]}"
        time.sleep(0.2)
    return found


def bucket_start() -> int:
    now = int(time.time() * 1000)
    return now - now % watch.LONGEST_MS


def test_one_alert_per_bucket_and_a_clean_stop(bootstrap: str) -> None:
    start = bucket_start()
    asyncio.run(send(bootstrap, [injection("before", n, start + n) for n in range(3)]))
    process = worker(bootstrap)
    try:
        wait_for(bootstrap, lambda found: len(found) == 1)
        lasting = [injection("lasting", n, start - (30 - n) * watch.MINUTE_MS) for n in range(30)]
        asyncio.run(send(bootstrap, [*lasting, *lasting[-3:], injection("last", 0, start)]))
        asyncio.run(send(bootstrap, [injection("last", n, start + n) for n in (1, 2)]))
        found = wait_for(bootstrap, lambda found: any(alert.tenant == "last" for alert in found))
    finally:
        assert kill(process, signal.SIGTERM) == 0
    assert [alert.tenant for alert in found] == ["before", "lasting", "lasting", "lasting", "last"]
    assert len({alert.alert for alert in found}) == 5
    assert found == watch.replay(decode(FindingEvent, v) for v in asyncio.run(read(bootstrap, "findings")))


def test_a_killed_worker_goes_on_where_it_was(bootstrap: str) -> None:
    start = bucket_start()
    process = worker(bootstrap)
    try:
        asyncio.run(send(bootstrap, [injection("half", n, start + n) for n in (0, 1)]))
        asyncio.run(send(bootstrap, [injection("whole", n, start + n) for n in range(3)]))
        wait_for(bootstrap, lambda found: [alert.tenant for alert in found] == ["whole"])
    finally:
        kill(process)
    # what came while nobody watched, and the third of what the killed worker had in memory alone
    asyncio.run(send(bootstrap, [injection("absent", n, start + n) for n in range(3)]))
    asyncio.run(send(bootstrap, [injection("half", 2, start + 2), injection("whole", 3, start + 3)]))
    process = worker(bootstrap)
    try:
        found = wait_for(bootstrap, lambda found: len(found) >= 3)
    finally:
        kill(process)
    assert [alert.tenant for alert in found] == ["whole", "absent", "half"]


def test_another_worker_takes_over_from_a_killed_one(bootstrap: str) -> None:
    start = bucket_start()
    asyncio.run(send(bootstrap, [injection("first", n, start + n) for n in range(3)]))
    asyncio.run(send(bootstrap, [injection("half", n, start + n) for n in (0, 1)]))
    first = worker(bootstrap, "watch-0")
    second = None
    try:
        wait_for(bootstrap, lambda found: len(found) == 1)
        second = worker(bootstrap, "watch-1")
        time.sleep(3)  # until it is a member, with nothing or all; either way the first is gone then
        kill(first)
        asyncio.run(send(bootstrap, [injection("half", 2, start + 2)]))
        found = wait_for(bootstrap, lambda found: any(alert.tenant == "half" for alert in found))
    finally:
        kill(first)
        if second is not None:
            kill(second)
    assert {encode(alert) for alert in found} == {
        encode(alert)
        for alert in watch.replay(decode(FindingEvent, v) for v in asyncio.run(read(bootstrap, "findings")))
    }


def test_kills_at_any_moment_lose_and_change_nothing(bootstrap: str) -> None:
    rng = random.Random(7)
    start = bucket_start()
    events = [injection(f"t{t}", n, start + n) for t in range(60) for n in range(3)]
    rng.shuffle(events)
    for step in range(4):
        process = worker(bootstrap)
        try:
            for at in range(step * 45, step * 45 + 45, 5):
                asyncio.run(send(bootstrap, events[at : at + 5]))
            time.sleep(rng.uniform(0.5, 3))
        finally:
            kill(process)
    process = worker(bootstrap)
    try:
        found = wait_for(bootstrap, lambda found: len({alert.alert for alert in found}) == 60)
    finally:
        assert kill(process, signal.SIGTERM) == 0
    expected = watch.replay(decode(FindingEvent, value) for value in asyncio.run(read(bootstrap, "findings")))
    # a repeat after an unmarked write is allowed, but only byte for byte
    assert {encode(alert) for alert in found} == {encode(alert) for alert in expected}
