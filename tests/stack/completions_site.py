"""Completions of a test's own workers, and what became of them."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.admit.rules import RULES
from pipeline.audit.replay import Replay
from pipeline.events.chain import ChainReader
from pipeline.events.codec import decode_log
from pipeline.events.records import LogRecord, Outcome
from pipeline.metrics import DROPPED
from tests.admit_site import Writers, history, read
from tests.patience import looks


async def send(writers: Writers, values: list[bytes]) -> None:
    await writers.publisher.send_all([("completions", 0, b"o", value, ()) for value in values])


async def until_ended(bootstrap: str, requests: set[str]) -> list[LogRecord]:
    for _ in looks():
        records = await history(bootstrap)
        if requests <= {record.request for record in records if isinstance(record, Outcome)}:
            return records
        await asyncio.sleep(0.1)
    raise AssertionError("requests are without an outcome")


def dropped(writers: Writers, reason: str) -> float:
    return writers.metrics.registry.get_sample_value(DROPPED, {"reason": reason}) or 0.0


async def until_dropped(writers: Writers, reason: str, count: int) -> None:
    for _ in looks():
        if dropped(writers, reason) >= count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{dropped(writers, reason)} of {count} completions were dropped: {reason}")


async def derived(deployment: Any) -> None:
    """Assert that the verifier finds no fault in the log, and that nothing is held at its end."""
    control = [(item.offset, item.value) for item in await read(deployment.bootstrap, "control")]
    replay, chain = Replay(RULES, 0, control, pin=deployment.pin), ChainReader()
    items = await read(deployment.bootstrap, "decisions")
    stored = [entry for item in items for entry in chain.push(item.entry())]
    assert [fault for e in stored for fault in replay.push(decode_log(e.value), e.value, e.time)] == []
    assert replay.open == 0
