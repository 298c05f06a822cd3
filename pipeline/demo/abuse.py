"""Abuse that no client library would send: oversized and malformed bytes, wrong and revoked keys, a forged tenant."""

from __future__ import annotations

import base64
from collections.abc import Callable

import aiohttp
import msgspec

from pipeline.clock import now_ms
from pipeline.demo.clients import TrafficReport
from pipeline.demo.people import Credentials
from pipeline.endpoints import KafkaEndpoint
from pipeline.events import wire
from pipeline.events.control import Control
from pipeline.kafka.writer import Publisher
from pipeline.topics import partition_of

_OVER = 3 * 1024 * 1024
ABUSES = 10
"""Calls of both functions together."""


async def abuse_gateway(url: str, credentials: Credentials, report: TrafficReport, advance: Callable[[], None]) -> None:
    """Send what the gateway refuses, each with its own status; none reaches Kafka as a request."""
    good = credentials.keys["globex-app"]
    wrong = f"{good[:-6]}AAAAAA"
    question = b'{"prompt": "What is a dog?"}'
    attempts = (
        ("an oversized body", good, b'{"prompt": "' + b"x" * _OVER + b'"}', 413),
        ("malformed bytes", good, b'\xff\xfe{"prompt": ', 400),
        ("deep JSON", good, b'{"prompt": ' + b"[" * 20_000, 400),
        ("a wrong key", wrong, question, 401),
        ("a revoked key", credentials.revoked, question, 401),
        ("a tenant in the body", good, b'{"prompt": "What is a dog?", "tenant": "acme"}', 400),
    )
    async with aiohttp.ClientSession() as session:
        for name, key, body, status in attempts:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with session.post(f"{url}/inference", data=body, headers=headers) as answer:
                await answer.read()
                if answer.status != status:
                    report.surprises.append(f"{name}: expected {status}, got {answer.status}")
            report.calls["gateway refusals"] += 1
            advance()


async def abuse_kafka(
    kafka: KafkaEndpoint, control: Control, credentials: Credentials, report: TrafficReport, advance: Callable[[], None]
) -> None:
    """Write records that a program with Write on ``requests`` could send; each gets its decision."""
    partitions = control.require_deployment().partitions
    home = partition_of(b"globex", partitions)
    value, headers = _signed(credentials.keys["globex-app"])
    forged = [(name, b"kdeadbeef0000" if name == "sluice-key" else header) for name, header in headers]
    tampered = [(name, b"tampered" if name == "sluice-request" else header) for name, header in headers]
    publisher = Publisher(kafka)
    try:
        await publisher.send_all(
            [
                ("requests", home, b"globex", b"\xff\xfenot json", [("x", b"y")]),
                ("requests", home, b"globex", value, tampered),
                ("requests", home, b"globex", value, forged),
                ("requests", (home + 1) % partitions, b"acme", value, headers),
            ]
        )
    finally:
        await publisher.close()
    for _ in range(4):
        report.calls["kafka abuse"] += 1
        advance()


def _signed(key_text: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    key, secret = key_text.removeprefix("sk-sluice-").split(".")
    value = msgspec.json.encode(wire.InferenceBody(model="glossary", max_tokens=8, sealed=b"not sealed by anyone"))
    raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    now = now_ms()
    return value, wire.sign(raw, key, "globex-app:abuse", "inference", value, time=now, session=f"a{now}", counter=1)
