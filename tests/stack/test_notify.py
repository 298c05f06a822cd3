"""Notify on a real broker with a real receiver: retries, recovery after SIGKILL, and nothing lost or altered."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiokafka.admin import NewTopic
from standardwebhooks.webhooks import Webhook

from pipeline.config import cache
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode, encode
from pipeline.events.control import Tenant
from pipeline.events.messages import Alert, Delivery
from pipeline.kafka.clients import make_admin
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.rotation import rotated
from pipeline.keys.vault import FileKeyring, secret_text, tenant_keys
from pipeline.topics import BY_NAME
from tests.patience import STUCK_S
from tests.stack.heeding import await_heeding

CACHE = cache()
WORKER = """
import asyncio, signal, sys
import uvloop
from pathlib import Path
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.notify.worker import NotifySettings, run
from pipeline.notify.outbox import Schedule
from pipeline.keys.vault import FileKeyring, Vault

async def main(bootstrap, keyring, instance):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    kafka = KafkaEndpoint(bootstrap)
    table = ControlTable(kafka, "")
    await table.start()
    settings = NotifySettings(True, 5.0, schedule=Schedule(200, 1000, 6), instance=instance)
    following = asyncio.create_task(table.follow(stop))
    await run(kafka, table, Vault(FileKeyring(Path(keyring)), table.control), settings, stop)
    await following
    await table.close()

uvloop.run(main(*sys.argv[1:]))
"""


class Receiver:
    """An HTTP server in a thread: answers as told by path, and keeps what came."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[str, int], int] = lambda tenant, nth: 200
        self.gate = threading.Event()
        self.gate.set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def url(self, tenant: str) -> str:
        return f"http://127.0.0.1:{self.port}/{tenant}"

    def of(self, tenant: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for path, headers, body in list(self.came) if path == tenant]

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_post("/{tenant}", self._take)
        runner = web.AppRunner(app)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.port = runner.addresses[0][1]
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _take(self, request: web.Request) -> web.Response:
        tenant, body = request.match_info["tenant"], await request.read()
        self.came.append((tenant, {k.lower(): v for k, v in request.headers.items()}, body))
        nth = len(self.of(tenant))
        await self._loop.run_in_executor(None, self.gate.wait, 30)
        return web.Response(status=self.answer(tenant, nth))


class Stack:
    """A broker with two partitions, a keyring, and a worker to be killed."""

    def __init__(self, bootstrap: str, keyring: Path) -> None:
        self.bootstrap, self._keyring = bootstrap, keyring
        self._kms = FileKeyring.create(keyring)
        self.secrets: dict[str, bytes] = {}
        self.tenants: dict[str, Tenant] = {}

    def worker(self, instance: str = "notify-0") -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WORKER, self.bootstrap, str(self._keyring), instance])

    def tenant(self, name: str, url: str) -> None:
        keys = tenant_keys(self._kms, name)
        self.secrets[name] = self._kms.unwrap(keys["webhook_secret"], f"webhook/{name}")
        self._put(Tenant(id=name, organisation="org", plan="free", webhook=url, **keys))

    def rotate(self, name: str, overlap_ms: int) -> bytes:
        """Replace the secret of a tenant's webhook; gives the new one."""
        self._put(rotated(self._kms, self.tenants[name], "webhook", int(time.time() * 1000), overlap_ms))
        return self._kms.unwrap(self.tenants[name].webhook_secret, f"webhook/{name}")

    def _put(self, document: Tenant) -> None:
        self.tenants[document.id] = document
        self.send("control", 0, [document.model_dump_json().encode()])

    def alerts(self, tenant: str, numbers: range, partition: int = 0) -> list[str]:
        now = int(time.time() * 1000)
        made = [Alert(f"{tenant}-{n:032d}", now, "rule-a", 3, "org", tenant, "", "A title", 3, now) for n in numbers]
        self.send("alerts", partition, [encode(alert) for alert in made])
        return [alert.alert for alert in made]

    def send(self, topic: str, partition: int, values: list[bytes]) -> None:
        async def run() -> None:
            publisher = Publisher(KafkaEndpoint(self.bootstrap))
            await publisher.start()
            await publisher.send_all([(topic, partition, b"k", value, ()) for value in values])
            await publisher.close()

        asyncio.run(run())

    def deliveries(self) -> list[Delivery]:
        async def run() -> list[Delivery]:
            found = []
            for partition in (0, 1):
                reader = PartitionReader(KafkaEndpoint(self.bootstrap), "deliveries", partition)
                await reader.start(0)
                found += [decode(Delivery, item.value) for item in await reader.read_to_end()]
                await reader.close()
            return found

        return asyncio.run(run())


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    supervisor = Supervisor()
    broker = EmbeddedBroker(BrokerSettings(tmp_path / "kafka", CACHE, free_port(), free_port()), supervisor)
    broker.ensure_fetched(print)
    broker.start()
    asyncio.run(_create(broker.bootstrap))
    yield Stack(broker.bootstrap, tmp_path / "keyring.json")
    supervisor.stop_all()


async def _create(bootstrap: str) -> None:
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        wanted = [("control", 1), ("alerts", 2), ("deliveries", 2)]
        await admin.create_topics([NewTopic(n, p, 1, topic_configs=BY_NAME[n].config(1)) for n, p in wanted])
    finally:
        await admin.close()


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = STUCK_S) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, f"waited {timeout_s} s for {what}"
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes], how: int) -> int:
    if how == signal.SIGTERM:
        await_heeding(process.pid, how)
    process.send_signal(how)
    return process.wait(STUCK_S)


def ids(came: list[tuple[dict[str, str], bytes]]) -> list[str]:
    return [headers["webhook-id"] for headers, _ in came]


def test_failures_are_retried_until_the_target_takes_it(stack: Stack) -> None:
    with Receiver() as receiver:
        receiver.answer = lambda tenant, nth: {"bad-then-good": 500 if nth < 3 else 200, "never": 503}.get(tenant, 200)
        for tenant in ("bad-then-good", "never", "good"):
            stack.tenant(tenant, receiver.url(tenant))
        stack.tenant("silent", "")
        worker = stack.worker()
        try:
            wanted = [stack.alerts(tenant, range(1), p) for tenant, p in (("bad-then-good", 0), ("never", 1))]
            good, _ = stack.alerts("good", range(3)), stack.alerts("silent", range(2))
            wait_until(lambda: sum(d.status == "dead" for d in stack.deliveries()) == 1, "the dead letter")
            wait_until(lambda: sum(d.status == "delivered" for d in stack.deliveries()) == 4, "four deliveries")
        finally:
            assert stop(worker, signal.SIGTERM) == 0
        for tenant, tries in (("bad-then-good", 3), ("never", 6), ("good", 3)):
            came = receiver.of(tenant)
            assert len(came) == tries
            for headers, body in came:
                said = Webhook(secret_text(stack.secrets[tenant])).verify(body, headers)
                assert said["data"]["finding_info"]["uid"] == headers["webhook-id"]
        assert len({receiver.of("never")[n][1] for n in range(6)}) == 1
        assert ids(receiver.of("bad-then-good")) == wanted[0] * 3
        assert ids(receiver.of("good")) == good
        told = [(d.attempt, d.status, d.http_status) for d in stack.deliveries() if d.tenant == "never"]
        assert told == [(n, "retry", 503) for n in range(1, 6)] + [(6, "dead", 503)]
        assert not any("127.0.0.1" in encode(d).decode() for d in stack.deliveries())


def test_while_a_secret_is_replaced_receivers_with_either_take_every_delivery(stack: Stack) -> None:
    with Receiver() as receiver:
        stack.tenant("t", receiver.url("t"))
        former = stack.secrets["t"]
        worker = stack.worker()
        sent = stack.alerts("t", range(3))
        wait_until(lambda: set(ids(receiver.of("t"))) == set(sent), "the deliveries of before")
        current = stack.rotate("t", overlap_ms=86_400_000)
        more = stack.alerts("t", range(3, 9))
        wait_until(lambda: set(ids(receiver.of("t"))) == {*sent, *more}, "the deliveries of the overlap")
        for headers, body in receiver.of("t"):
            assert Webhook(secret_text(former)).verify(body, headers)
        both = [headers for headers, _ in receiver.of("t") if " " in headers["webhook-signature"]]
        assert both, "the worker has read of the new secret"
        for headers, body in receiver.of("t"):
            if headers in both:
                assert Webhook(secret_text(current)).verify(body, headers)
        assert stop(worker, signal.SIGTERM) == 0


def test_a_worker_killed_between_post_and_record_posts_the_same_again(stack: Stack) -> None:
    with Receiver() as receiver:
        stack.tenant("t1", receiver.url("t1"))
        receiver.gate.clear()
        worker = stack.worker()
        try:
            (alert,) = stack.alerts("t1", range(1))
            wait_until(lambda: len(receiver.of("t1")) == 1, "the first post")
        finally:
            stop(worker, signal.SIGKILL)
        receiver.gate.set()
        assert stack.deliveries() == []
        worker = stack.worker()
        try:
            wait_until(lambda: len(stack.deliveries()) == 1, "the record")
        finally:
            stop(worker, signal.SIGTERM)
        (first, again) = receiver.of("t1")
        assert ids([first, again]) == [alert, alert]
        assert first[1] == again[1]
        worker = stack.worker()
        try:
            (marker,) = stack.alerts("t1", range(9, 10))
            wait_until(lambda: ids(receiver.of("t1"))[-1] == marker, "a later alert")
        finally:
            stop(worker, signal.SIGTERM)
        assert ids(receiver.of("t1")) == [alert, alert, marker]


def test_another_worker_takes_over_from_a_killed_one(stack: Stack) -> None:
    with Receiver() as receiver:
        for tenant in ("t0", "t1"):
            stack.tenant(tenant, receiver.url(tenant))
        workers = [stack.worker(f"notify-{n}") for n in (0, 1)]
        try:
            before = [stack.alerts(f"t{p}", range(2), p) for p in (0, 1)]
            wait_until(lambda: len(stack.deliveries()) == 4, "the first deliveries")
            stop(workers[0], signal.SIGKILL)
            after = [stack.alerts(f"t{p}", range(2, 4), p) for p in (0, 1)]
            wait_until(lambda: len(stack.deliveries()) == 8, "the deliveries of the one that is left")
        finally:
            for one in workers:
                stop(one, signal.SIGKILL)
        for p in (0, 1):
            assert set(ids(receiver.of(f"t{p}"))) == {*before[p], *after[p]}


def test_kills_at_any_moment_lose_no_alert_and_no_attempt_on_record(stack: Stack) -> None:
    tenants = [f"t{n}" for n in range(6)]
    with Receiver() as receiver:
        receiver.answer = lambda tenant, nth: 500 if tenant == "t5" and nth <= 3 else 200
        for tenant in tenants:
            stack.tenant(tenant, receiver.url(tenant))
        wanted: dict[str, list[str]] = {tenant: [] for tenant in tenants}
        for step in range(4):
            worker = stack.worker()
            for n, tenant in enumerate(tenants):
                wanted[tenant] += stack.alerts(tenant, range(step * 3, step * 3 + 3), n % 2)
            time.sleep(1.0 + 0.7 * step)
            stop(worker, signal.SIGKILL)
        worker = stack.worker()
        try:
            wait_until(lambda: sum(d.status == "delivered" for d in stack.deliveries()) >= 72, "all deliveries")
        finally:
            assert stop(worker, signal.SIGTERM) == 0
        for tenant in tenants:
            assert set(ids(receiver.of(tenant))) == set(wanted[tenant])
        finished = [d.alert for d in stack.deliveries() if d.status == "delivered"]
        assert sorted(finished) == sorted(alert for made in wanted.values() for alert in made)
