"""The site that tests of the gateway and of producers share: a broker, a gateway, a worker that plays the stages."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import openai
from aiokafka.admin import NewTopic
from openai.types.chat import ChatCompletionMessageParam

from pipeline.config import cache
from pipeline.embedded.broker import EmbeddedBroker
from pipeline.embedded.broker_config import BrokerSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.events import control, wire
from pipeline.events.codec import encode
from pipeline.events.ids import request_id
from pipeline.events.messages import Response
from pipeline.gateway.app import run
from pipeline.gateway.auth import bearer
from pipeline.gateway.settings import Bounds, GatewaySettings
from pipeline.kafka.clients import make_admin, make_producer
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.keys.vault import FileKeyring, Vault, tenant_keys
from pipeline.topics import TOPICS
from tests.patience import STUCK_S

CACHE = cache()
PARTITIONS = 4
SECRET = b"\x07" * 32
KEY = bearer("k-acme", SECRET)


def documents(keyring: FileKeyring) -> list[control.AnyDocument]:
    def key(name: str, status: Literal["active", "revoked"] = "active", principal: str = "acme-1") -> control.Key:
        return control.Key(id=name, principal=principal, secret=keyring.wrap(SECRET, f"key/{name}"), status=status)

    return [
        control.Deployment(generation="g1", partitions=PARTITIONS),
        control.Plan(id="small", models=("glossary",), max_tokens=64),
        control.Model(id="glossary", context=256),
        control.Organisation(id="acme"),
        control.Tenant(id="acme", organisation="acme", plan="small", **tenant_keys(keyring, "acme")),
        control.Principal(id="acme-1", tenant="acme"),
        control.Principal(id="acme-2", tenant="acme"),
        key("k-acme"),
        key("k-second", principal="acme-2"),
        key("k-revoked", "revoked"),
    ]


async def lay_out(bootstrap: str, found: list[control.AnyDocument]) -> None:
    """Topics and control documents."""
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(t.name, PARTITIONS if t.partitions == "main" else 1, 1, topic_configs=t.config(1))
                for t in TOPICS
            ]
        )
    finally:
        await admin.close()
    async with make_producer(KafkaEndpoint(bootstrap)) as producer:
        for document in found:
            raw = document.model_dump_json().encode()
            await producer.send_and_wait("control", raw, key=document.id.encode(), partition=0)


@dataclass
class GatewaySite:
    bootstrap: str
    keyring: Path
    control: control.Control
    vault: Vault
    broker: EmbeddedBroker
    port: int = field(default_factory=free_port)

    @property
    def kafka(self) -> KafkaEndpoint:
        return KafkaEndpoint(self.bootstrap)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def opened_site(home: Path) -> Iterator[GatewaySite]:
    supervisor = Supervisor()
    settings = BrokerSettings(home=home / "broker", cache=CACHE, port=free_port(), controller_port=free_port())
    broker = EmbeddedBroker(settings, supervisor)
    broker.ensure_fetched(print)
    broker.start()
    try:
        keyring = FileKeyring.create(home / "keyring.json")
        found, known = documents(keyring), control.Control()
        for version, document in enumerate(found):
            known.apply(version, document)
        asyncio.run(lay_out(broker.bootstrap, found))
        yield GatewaySite(broker.bootstrap, home / "keyring.json", known, Vault(keyring, known), broker)
    finally:
        supervisor.stop_all()


async def answering(url: str, task: asyncio.Task[None] | None = None) -> None:
    """Return once the gateway is ready, or ``task`` is over."""
    async with aiohttp.ClientSession() as session:
        while task is None or not task.done():
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def serving(site: GatewaySite, lane: int = 0, **bounds: int | float) -> AsyncIterator[asyncio.Event]:
    """A gateway until the block ends; gives the event that stops it."""
    stop = asyncio.Event()
    settings = GatewaySettings(
        site.kafka,
        site.keyring,
        port=site.port,
        reply_partition=lane,
        bounds=Bounds(**bounds),  # type: ignore[arg-type]
    )
    task = asyncio.create_task(run(settings, stop))
    try:
        await answering(site.url, task)
        yield stop
    finally:
        stop.set()
        await task


class Worker:
    """Reads ``requests``, checks each record as admit would, and answers by the words of its prompt."""

    def __init__(self, site: GatewaySite) -> None:
        self.site = site
        self.seen: list[tuple[wire.Envelope, KafkaRecord]] = []
        self.bodies: list[wire.InferenceBody] = []
        self.messages: list[tuple[wire.Message, ...]] = []
        self.cancelled: list[str] = []
        self._readers = [PartitionReader(site.kafka, "requests", p) for p in range(PARTITIONS)]
        self._producer = make_producer(site.kafka)
        self._tasks: list[asyncio.Task[None]] = []
        self._bell = asyncio.Event()

    async def until(self, holds: Callable[[], object]) -> None:
        """Return once ``holds`` is true, looked at after each record."""
        while not holds():
            self._bell.clear()
            await self._bell.wait()

    async def __aenter__(self) -> Worker:
        await self._producer.start()
        for number, reader in enumerate(self._readers):
            await reader.start(None)
            self._tasks.append(asyncio.create_task(self._follow(number, reader)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for reader in self._readers:
            await reader.close()
        await self._producer.stop()
        faults = [r for r in results if not isinstance(r, asyncio.CancelledError)]
        assert not faults, faults

    async def _follow(self, partition: int, reader: PartitionReader) -> None:
        while True:
            for item in await reader.poll(wait_ms=50):
                await self._take(partition, item)

    async def _take(self, partition: int, item: KafkaRecord) -> None:
        envelope = wire.open_envelope(item.headers)
        assert envelope.genuine(self.site.vault.key_secret(envelope.key), item.value)
        self.seen.append((envelope, item))
        if envelope.kind == "cancel":
            self.cancelled.append(wire.decode_cancel(item.value).target)
            self._bell.set()
            return
        body = wire.decode_inference(item.value)
        text = self.site.vault.decrypt("acme", "request", "messages", envelope.request, body.sealed, envelope.wrap)
        messages = wire.decode_messages(text)
        self.bodies.append(body)
        self.messages.append(messages)
        self._bell.set()
        await self._play(request_id("g1", partition, item.offset), envelope, messages[-1].content)

    async def _play(self, request: str, envelope: wire.Envelope, said: str) -> None:
        def response(event: str, **rest: object) -> Response:
            return Response(request, envelope.request, "acme", event, **rest)  # type: ignore[arg-type]

        if said.startswith("refuse "):
            _, reason, wait = said.split()
            await self._send(envelope, response("refusal", reason=reason, limit="t:acme|rpm", retry_after_ms=int(wait)))
        elif said == "silence":
            return
        elif said == "two attempts":
            first, second = self._chunks(envelope, request, "a1", ["one ", "two "]), ["one ", "two ", "three"]
            await self._send(envelope, *first, *self._chunks(envelope, request, "a2", second))
            await self._send(envelope, self._end(envelope, request, "a2", "finished", "".join(second)))
        elif said == "replayed copy":
            stranger = Response("g1-0-999999", envelope.request, "acme", "refusal", reason="replayed")
            await self._send(envelope, stranger, *self._chunks(envelope, request, "a1", ["fine"]))
            await self._send(envelope, self._end(envelope, request, "a1", "finished", "fine"))
        elif said == "hang":
            await self._send(envelope, *self._chunks(envelope, request, "a1", ["begin "]))
        elif said.startswith("end "):
            await self._send(envelope, *self._chunks(envelope, request, "a1", ["some "]))
            await self._send(envelope, self._end(envelope, request, "a1", said[4:], "some "))
        else:
            words = [word + " " for word in said.split()]
            await self._send(envelope, *self._chunks(envelope, request, "a1", words))
            await self._send(envelope, self._end(envelope, request, "a1", "finished", "".join(words)))

    def _chunks(self, envelope: wire.Envelope, request: str, attempt: str, words: list[str]) -> list[Response]:
        found, so_far = [], b""
        for position, word in enumerate(words):
            so_far += word.encode()
            sealed = self.site.vault.encrypt(
                "acme", "response", f"{attempt}:{position}", envelope.request, word.encode()
            )
            prefix = hashlib.sha256(so_far).digest()
            found.append(
                Response(request, envelope.request, "acme", "chunk", attempt, position, sealed=sealed, prefix=prefix)
            )
        return found

    def _end(self, envelope: wire.Envelope, request: str, attempt: str, result: str, text: str) -> Response:
        return Response(
            request,
            envelope.request,
            "acme",
            "end",
            attempt,
            prefix=hashlib.sha256(text.encode()).digest(),
            result=result,
            finish="stop",
            input_tokens=5,
            output_tokens=len(text.split()),
            reason="output.verbatim" if result == "withheld" else "",
        )

    async def _send(self, envelope: wire.Envelope, *responses: Response) -> None:
        lane = envelope.lane if envelope.lane >= 0 else PARTITIONS - 1
        for response in responses:
            await self._producer.send_and_wait("responses", encode(response), partition=lane)


def client(site: GatewaySite, key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=f"{site.url}/v1", max_retries=0)


def play(site: GatewaySite, test: Callable[[openai.AsyncOpenAI, Worker], Awaitable[None]], **bounds: Any) -> None:
    async def job() -> None:
        async with asyncio.timeout(STUCK_S), serving(site, **bounds), Worker(site) as worker, client(site) as stock:
            await test(stock, worker)

    asyncio.run(job())


def said(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]
