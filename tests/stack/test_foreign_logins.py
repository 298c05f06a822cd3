"""Kafka clients of other makers log in over TLS as a key's own user: admitted, and refused at every other topic."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.embedded.broker_config import REAUTHENTICATE_MS
from pipeline.embedded.supervisor import Supervisor
from pipeline.keys.api_key import kafka_password, parse_key
from tests.certificates import broker_pem
from tests.patience import STUCK_S
from tests.stack.real_stages import serving
from tests.stack.test_direct_producers import Site
from tests.stack.test_foreign import (
    PROMPT,
    SOURCES,
    check,
    decided,
    found_or_skip,
    go_producer,
    java_command,
    outcome,
    output,
)

NOT_ALLOWED = re.compile("not authori[sz]ed to access topics|topic.authorization.failed", re.IGNORECASE)
OTHER = "decisions"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    supervisor, home = Supervisor(), tmp_path_factory.mktemp("logins")
    try:
        # as in production: KafkaJS logs in again ten seconds early, and brokers want a second between two logins
        made = Site(home, supervisor, broker_pem(home), REAUTHENTICATE_MS)
        asyncio.run(made.furnish())
        yield made
    finally:
        supervisor.stop_all()


def authority(site: Site) -> str:
    return str(Path(site.settings.kafka.ca_file).with_name("ca.pem"))


def java_program(_: Path) -> list[str]:
    return [*java_command(), "send"]


def go_program(folder: Path) -> list[str]:
    return [go_producer(folder)]


def node_program(folder: Path) -> list[str]:
    """Its Kafka client is fetched on first use."""
    node, npm = found_or_skip("node", "KafkaJS is not run"), found_or_skip("npm", "KafkaJS is not fetched")
    copy = shutil.copytree(SOURCES / "node", folder / "node", ignore=shutil.ignore_patterns("node_modules"))
    fetch = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    if subprocess.run(fetch, cwd=copy, capture_output=True, check=False).returncode:
        pytest.skip("KafkaJS is not run: it is not at hand and cannot be fetched here")
    return [node, str(copy / "producer.mjs")]


async def refusal(command: list[str]) -> str:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    _, fault = await child.communicate()
    assert child.returncode, f"{command[0]} wrote to a topic that is not its own"
    return fault.decode()


async def admitted(site: Site, answer: dict[str, str]) -> None:
    assert (answer["result"], answer["text"]) == ("finished", PROMPT)
    check(await decided(site.settings.kafka.endpoint, answer["request"]), "acme", site.settings.kafka.partitions)


@pytest.mark.parametrize("program", [java_program, go_program, node_program])
def test_a_client_that_logs_in_over_tls_is_admitted_and_writes_to_no_other_topic(
    site: Site, tmp_path: Path, program: Callable[[Path], list[str]]
) -> None:
    """Each derives its password from the key as WIRE.md says, and is told by the broker what it may not."""
    command = program(tmp_path)

    async def job() -> None:
        key = await site.issue()
        words = [*command, site.url, key, PROMPT, authority(site)]
        async with asyncio.timeout(STUCK_S), serving(site.settings):
            await admitted(site, json.loads(await output(words)))
            assert NOT_ALLOWED.search(await refusal([*words, OTHER]))

    asyncio.run(job())


def test_librdkafka_that_logs_in_over_tls_is_admitted_and_writes_to_no_other_topic(site: Site) -> None:
    """The record that it writes is made by Node."""
    confluent = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed: librdkafka is not run")
    node = found_or_skip("node", "librdkafka has no foreign record to write")

    def write(settings: dict[str, str], topic: str, made: dict[str, Any]) -> list[str]:
        faults: list[str] = []
        headers = [(name, base64.b64decode(raw)) for name, raw in made["headers"]]
        producer = confluent.Producer(settings)
        producer.produce(
            topic,
            base64.b64decode(made["value"]),
            base64.b64decode(made["key"]),
            headers=headers,
            on_delivery=lambda fault, _: faults.append("" if fault is None else str(fault)),
        )
        producer.flush(STUCK_S)
        return faults

    async def job() -> None:
        key = await site.issue()
        user, secret = parse_key(key)
        settings = {
            "bootstrap.servers": site.broker.producers,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": authority(site),
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": user,
            "sasl.password": kafka_password(secret),
            # its own default places a key by another hash than Java's client does
            "partitioner": "murmur2_random",
        }
        async with asyncio.timeout(STUCK_S), serving(site.settings):
            made = json.loads(await output([node, str(SOURCES / "node" / "producer.mjs"), site.url, key, PROMPT]))
            assert await asyncio.to_thread(write, settings, made["topic"], made) == [""]
            await admitted(site, await outcome(site.url, key, made["client_request"]))
            [fault] = await asyncio.to_thread(write, settings, OTHER, made)
            assert NOT_ALLOWED.search(fault)

    asyncio.run(job())
