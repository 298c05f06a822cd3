"""Gateway to answer with the echo engine, against the least that its hops can take on the same broker.

The floor is one record that goes through three bare hops (written, acknowledged, read by a waiting consumer) and one
bare acknowledgement, one after the other, as a request does: ``requests``, ``decisions``, ``work``, ``responses``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic

from pipeline.embedded.stack import LocalStack
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode, decode_log
from pipeline.events.messages import Response, Work
from pipeline.events.records import Decision
from pipeline.kafka.clients import make_admin, make_consumer, make_producer
from pipeline.kafka.reader import KafkaRecord, PartitionReader
from pipeline.topics import partition_of
from tests.bench.load import prompts
from tests.bench.rows import Measurement, percentile
from tests.bench.site import PARTITIONS, cpu_seconds, family

SLACK_MS = 5.0
_WARM_S, _SATURATION_S, _PACED_S = 20.0, 6.0, 15.0
"""The broker's machine code is made while it works; a deployment runs for weeks."""
_CLIENTS = 24
TOKENS = 4
"""Of one answer: what is timed is the way, not a worker that writes hundreds of chunks."""
_TOPICS = ("bench-a", "bench-b", "bench-c", "bench-ack")
_VALUE = b"x" * 700
Ask = Callable[[], Awaitable[None]]


class BenchCaller:
    """One HTTP client; ``seconds`` of each answer, and when it was asked for by its request id."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self._texts = list(prompts(256, 300, attacks=0))
        self.took: list[float] = []
        self.asked: dict[str, tuple[float, float]] = {}

    async def ask(self) -> None:
        words = self._texts[len(self.took) % len(self._texts)]
        body = {"model": "echo", "max_tokens": TOKENS, "messages": [{"role": "user", "content": words}]}
        wall, began = time.time(), time.perf_counter()
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as answer:
            await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the gateway answered {answer.status}: {await answer.text()}")
            seconds = time.perf_counter() - began
            self.took.append(seconds)
            self.asked[answer.headers["x-sluice-request"]] = wall, wall + seconds


async def measure(stack: LocalStack, key: str) -> list[Measurement]:
    """Saturation in a closed loop, then half of it at an even pace, with the floor at the same pace before."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        caller = BenchCaller(session, stack.url)
        await closed_loop(caller.ask, _WARM_S)
        caller.took.clear()
        rate = await closed_loop(caller.ask, _SATURATION_S)
        async with Floor(stack.brokers[0].endpoint) as floor:
            await paced(floor.run, rate / 2, 2.0)
            floor.took.clear()
            await paced(floor.run, rate / 2, _PACED_S)
        caller.took.clear()
        caller.asked.clear()
        before = _cpu(stack)
        await paced(caller.ask, rate / 2, _PACED_S)
        spent = {name: (after - before[name]) / len(caller.took) for name, after in _cpu(stack).items()}
    hops = await _hops(stack.brokers[0].endpoint, caller)
    rows, load = _rows(rate, caller, floor, hops), "the same"
    return rows + [
        Measurement("answer", f"CPU of {name}", load, value * 1000, "ms/request") for name, value in spent.items()
    ]


def _cpu(stack: LocalStack) -> dict[str, float]:
    """CPU seconds of every process so far."""
    found = {name: sum(map(cpu_seconds, family(running.pid))) for name, running in stack.stages.items()}
    return {**found, "broker": cpu_seconds(stack.brokers[0].pid)}


def _rows(rate: float, caller: BenchCaller, floor: Floor, hops: dict[str, float]) -> list[Measurement]:
    load = f"{rate / 2:,.0f} requests/s, half of saturation, {_PACED_S:.0f} s, {TOKENS}-token answers, one machine"
    low = {share: percentile(floor.took, share) * 1000 for share in (0.5, 0.99)}
    ours = {share: percentile(caller.took, share) * 1000 for share in (0.5, 0.99)}
    rows = [
        Measurement(
            "answer", "saturation", f"{_CLIENTS} clients in a loop, after {_WARM_S:.0f} s of it", rate, "requests/s"
        ),
        Measurement("answer", "floor p50: 3 bare hops + 1 acknowledgement", load, low[0.5], "ms"),
        Measurement("answer", "floor p99", load, low[0.99], "ms"),
        Measurement("answer", "p50", load, ours[0.5], "ms", low[0.5] + SLACK_MS, "<="),
        Measurement("answer", "p99", load, ours[0.99], "ms", 2 * low[0.99], "<="),
    ]
    return rows + [Measurement("answer", f"mean of the hop {name}", load, value, "ms") for name, value in hops.items()]


async def closed_loop(ask: Ask, seconds: float) -> float:
    """Requests per second with every client asking again at once."""
    done, until = 0, time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await ask()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return done / (time.perf_counter() - began)


async def paced(ask: Ask, rate: float, seconds: float) -> None:
    """Ask at even intervals whether or not the answers have come."""
    began = time.perf_counter()
    tasks: list[asyncio.Task[object]] = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask()))  # type: ignore[arg-type]
    await asyncio.gather(*tasks)


class Floor:
    """Three bare hops and one bare acknowledgement, timed as one."""

    def __init__(self, kafka: KafkaEndpoint) -> None:
        self._endpoint = kafka
        self._producer = make_producer(kafka)
        self._consumers = [make_consumer(kafka) for _ in range(3)]
        self._waiting: dict[tuple[str, bytes], asyncio.Future[None]] = {}
        self._pumps: list[asyncio.Task[None]] = []
        self._count = 0
        self.took: list[float] = []

    async def __aenter__(self) -> Floor:
        await self._producer.start()
        admin = make_admin(self._endpoint)
        await admin.start()
        await admin.create_topics([NewTopic(name, 1, 1) for name in _TOPICS])
        await admin.close()
        for name, consumer in zip(_TOPICS, self._consumers, strict=False):
            await consumer.start()
            consumer.assign([TopicPartition(name, 0)])
            consumer.seek(TopicPartition(name, 0), 0)
            self._pumps.append(asyncio.create_task(self._pump(name, consumer)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for pump in self._pumps:
            pump.cancel()
        for client in (self._producer, *self._consumers):
            await client.stop()

    async def run(self) -> None:
        """One record through all of it."""
        began = time.perf_counter()
        self._count += 1
        key = str(self._count).encode()
        await self._hop("bench-a", key)
        await self._producer.send_and_wait("bench-ack", _VALUE, key=key, partition=0)
        await self._hop("bench-b", key)
        await self._hop("bench-c", key)
        self.took.append(time.perf_counter() - began)

    async def _hop(self, topic: str, key: bytes) -> None:
        arrived = self._waiting[topic, key] = asyncio.get_running_loop().create_future()
        await self._producer.send(topic, _VALUE, key=key, partition=0)
        await arrived

    async def _pump(self, topic: str, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            arrived = self._waiting.pop((topic, record.key), None)
            if arrived is not None:
                arrived.set_result(None)


async def _hops(kafka: KafkaEndpoint, caller: BenchCaller) -> dict[str, float]:
    """Mean ms between the broker's times of one request's records, and to the client at both ends (whole ms each)."""
    home = partition_of(b"bench", PARTITIONS)
    asked = {item.offset: item.time for item in await _all(kafka, "requests", home)}
    decided: dict[str, tuple[int, int]] = {}
    for item in await _all(kafka, "decisions", home):
        record = decode_log(item.value)
        if isinstance(record, Decision) and record.request in caller.asked:
            decided[record.request] = asked[record.facts.offset], item.time
    work = await _times(kafka, "work", lambda item: decode(Work, item.value).request)
    ended = await _times(kafka, "responses", _end)
    rows = [
        (caller.asked[name][0] * 1000, *times, work[name], ended[name], caller.asked[name][1] * 1000)
        for name, times in decided.items()
        if name in work and name in ended
    ]
    names = (
        "client -> requests",
        "requests -> decisions",
        "decisions -> work",
        "work -> end of responses",
        "responses -> client",
    )
    return {
        name: sum(row[index + 1] - row[index] for row in rows) / max(1, len(rows)) for index, name in enumerate(names)
    }


def _end(item: KafkaRecord) -> str:
    response = decode(Response, item.value)
    return response.request if response.event == "end" else ""


async def _times(kafka: KafkaEndpoint, topic: str, name: Callable[[KafkaRecord], str]) -> dict[str, int]:
    return {name(item): item.time for at in range(PARTITIONS) for item in await _all(kafka, topic, at)}


async def _all(kafka: KafkaEndpoint, topic: str, partition: int) -> list[KafkaRecord]:
    reader = PartitionReader(kafka, topic, partition)
    await reader.start(await reader.begin())
    try:
        return await reader.read_to_end()
    finally:
        await reader.close()
