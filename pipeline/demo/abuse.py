"""What no client library would send: oversized and malformed bytes, wrong and revoked keys, a forged tenant."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import aiohttp
import msgspec

from pipeline.demo.cast import Cast
from pipeline.demo.traffic import TrafficSeen
from pipeline.events import wire
from pipeline.events.control import Control
from pipeline.kafka.writer import Publisher
from pipeline.topics import partition_of

_OVER = 3 * 1024 * 1024
ABUSES = 10
"""Ticks of both functions together."""


async def abuse_gateway(url: str, cast: Cast, seen: TrafficSeen, tick: Callable[[], None]) -> None:
    """Each is refused at the door with its own status; none reaches Kafka as a request."""
    good = cast.keys["globex-app"]
    wrong = f"{good[:-6]}AAAAAA"
    ask = b'{"prompt": "What is a dog?"}'
    tries = (
        ("an oversized body", good, b'{"prompt": "' + b"x" * _OVER + b'"}', 413),
        ("malformed bytes", good, b'\xff\xfe{"prompt": ', 400),
        ("deep JSON", good, b'{"prompt": ' + b"[" * 20_000, 400),
        ("a wrong key", wrong, ask, 401),
        ("a revoked key", cast.revoked, ask, 401),
        ("a tenant in the body", good, b'{"prompt": "What is a dog?", "tenant": "acme"}', 400),
    )
    async with aiohttp.ClientSession() as session:
        for name, key, body, status in tries:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            async with session.post(f"{url}/inference", data=body, headers=headers) as answer:
                await answer.read()
                if answer.status != status:
                    seen.surprises.append(f"{name}: expected {status}, got {answer.status}")
            seen.doors["gateway refusals"] += 1
            tick()


async def abuse_kafka(
    bootstrap: str, control: Control, cast: Cast, seen: TrafficSeen, tick: Callable[[], None]
) -> None:
    """Records that a program with Write on ``requests`` could send; each gets its decision."""
    partitions = control.require_deployment().partitions
    home = partition_of(b"globex", partitions)
    value, headers = _signed(cast.keys["globex-app"])
    forged = [(name, b"kdeadbeef0000" if name == "sluice-key" else held) for name, held in headers]
    tampered = [(name, b"tampered" if name == "sluice-request" else held) for name, held in headers]
    publisher = Publisher(bootstrap)
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
        seen.doors["kafka abuse"] += 1
        tick()


def _signed(key_text: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    key, secret = key_text.removeprefix("sk-sluice-").split(".")
    value = msgspec.json.encode(wire.InferenceBody(model="glossary", max_tokens=8, sealed=b"not sealed by anyone"))
    raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    now = int(time.time() * 1000)
    return value, wire.sign(raw, key, "globex-app:abuse", "inference", value, time=now, session=f"a{now}", counter=1)
