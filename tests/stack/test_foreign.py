"""Producers in other languages, written after WIRE.md alone: admitted, answered, and placed as our own are."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from pipeline.config import Gateway, Generate, Keys, Settings
from pipeline.embedded.jars import cached_jars
from pipeline.embedded.supervisor import free_port
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.sections import Kafka
from pipeline.topics import partition_of
from tests.deployment_site import CACHE, Deployment, furnished
from tests.patience import STUCK_S
from tests.stack.real_stages import serving

SOURCES = Path(__file__).parents[1] / "foreign"
PARTITIONS = 4
PROMPT = "Qu’est-ce que 漢字? 🙂"


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with furnished(tmp_path_factory.mktemp("four"), PARTITIONS) as found:
        yield found


def settings_of(four: Deployment) -> Settings:
    return Settings(
        kafka=Kafka(bootstrap=four.bootstrap, partitions=PARTITIONS),
        keys=Keys(home=four.home / "keys"),
        gateway=Gateway(port=free_port()),
        generate=Generate(model="echo"),
    )


def found_or_skip(program: str, why: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: {why}")
    return path


def java_command() -> list[str]:
    java = found_or_skip("java", "the Java producer is not run")
    listed = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=True).stdout
    version = next((m.partition("@")[2] for m in listed.split() if m.startswith("jdk.compiler@")), "")
    if int(version.partition(".")[0] or 0) < 17:
        pytest.skip("no java of 17 or later with its compiler: the Java producer is not run")
    jars = ":".join(str(jar) for jar in cached_jars(CACHE))
    return [java, "-XX:TieredStopAtLevel=1", "-cp", jars, str(SOURCES / "Producer.java")]


async def output(command: list[str], raw: bytes = b"") -> str:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    told, fault = await child.communicate(raw)
    assert child.returncode == 0, fault.decode()[-2000:]
    return told.decode()


async def outcome(url: str, key: str, request: str) -> dict[str, str]:
    path, ask = f"{url}/v1/requests/{request}?wait_ms=20000", {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=ask) as http, http.get(path) as got:
        answer: dict[str, str] = await got.json()
        return answer


async def decided(kafka: KafkaEndpoint, request: str) -> Decision:
    partition = int(request.split("-")[1])
    reader = PartitionReader(kafka, "decisions", partition)
    try:
        await reader.start(0)
        for item in await reader.read_to_end():
            record = decode_log(item.value)
            if isinstance(record, Decision) and record.request == request:
                return record
    finally:
        await reader.close()
    raise AssertionError(f"{request} was not decided")


def check(decision: Decision, tenant: str, partitions: int = PARTITIONS) -> None:
    assert (decision.verdict, decision.tenant, decision.reasons) == ("admit", tenant, ())
    assert decision.facts.lane == -1
    assert int(decision.request.split("-")[1]) == partition_of(tenant.encode(), partitions)


def test_kafkas_own_java_client_is_admitted_and_answered(four: Deployment) -> None:
    """It also compresses with a codec that the stages do not have."""
    command, settings = java_command(), settings_of(four)

    async def job() -> None:
        async with asyncio.timeout(STUCK_S), serving(settings):
            url = f"http://127.0.0.1:{settings.gateway.port}"
            answer = json.loads(await output([*command, "send", url, four.keys["globex"], PROMPT]))
            assert (answer["result"], answer["text"]) == ("finished", PROMPT)
            check(await decided(four.kafka, answer["request"]), "globex")

    asyncio.run(job())


def test_kafkas_own_java_client_places_keys_as_we_do(four: Deployment) -> None:
    keys = [f"{word}{n}" for word in ("", "org-", "漢字", "x" * 60) for n in range(500)]
    told = asyncio.run(output([*java_command(), "place", "64"], "\n".join(keys).encode()))
    assert [int(line) for line in told.split()] == [partition_of(key.encode(), 64) for key in keys]


def go_producer(folder: Path) -> str:
    """The built program; its modules are fetched on first use."""
    go, program = found_or_skip("go", "the Go producer is not run"), str(folder / "producer")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    if tuple(int(n) for n in re.findall(r"\d+", version)[:2]) < (1, 26):
        pytest.skip(f"{version.strip()} has no HPKE in its library: the Go producer wants 1.26")
    source = SOURCES / "go"
    fetched = subprocess.run([go, "mod", "download"], cwd=source, capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip("the Go producer is not run: its Kafka client is not at hand and cannot be fetched here")
    # it sends one record: compiling with care, and with a C compiler, would take half as long again
    plain = [go, "build", "-gcflags=all=-N -l", "-ldflags=-s -w", "-o", program, "."]
    subprocess.run(plain, cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, check=True)
    return program


def test_a_go_client_with_its_defaults_is_admitted_and_answered(four: Deployment, tmp_path: Path) -> None:
    program, settings = go_producer(tmp_path), settings_of(four)

    async def job() -> None:
        async with asyncio.timeout(STUCK_S), serving(settings):
            url = f"http://127.0.0.1:{settings.gateway.port}"
            answer = json.loads(await output([program, url, four.keys["acme"], PROMPT]))
            assert (answer["result"], answer["text"]) == ("finished", PROMPT)
            check(await decided(four.kafka, answer["request"]), "acme")

    asyncio.run(job())


def test_a_record_made_by_node_is_admitted_and_answered(four: Deployment) -> None:
    node, settings = found_or_skip("node", "the Node producer is not run"), settings_of(four)

    async def job() -> None:
        async with asyncio.timeout(STUCK_S), serving(settings):
            url, key = f"http://127.0.0.1:{settings.gateway.port}", four.keys["acme"]
            made = json.loads(await output([node, str(SOURCES / "node" / "producer.mjs"), url, key, PROMPT]))
            headers = [(name, base64.b64decode(raw)) for name, raw in made["headers"]]
            raw_key, value = base64.b64decode(made["key"]), base64.b64decode(made["value"])
            publisher = Publisher(KafkaEndpoint(four.bootstrap))
            await publisher.send(made["topic"], made["partition"], raw_key, value, headers)
            await publisher.close()
            answer = await outcome(url, key, made["client_request"])
            assert (answer["result"], answer["text"]) == ("finished", PROMPT)
            check(await decided(four.kafka, answer["request"]), "acme")

    asyncio.run(job())
