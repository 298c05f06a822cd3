"""The memory of a large ledger, and how long it keeps an event loop from its other partitions.

A task that wakes every millisecond tells the longest time for which nothing else ran, while keys come in, while a
snapshot is made, while it is read back, and while the keys of the day before go.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from detectors.accounts.features import RequestParameters, sampling_features, text_features
from detectors.base import Part
from pipeline.admit.idempotency import IDEMPOTENCY_MS, digest_of
from pipeline.admit.journal import UndoJournal
from pipeline.admit.ledger import Ledger
from pipeline.admit.stored_snapshots import store_snapshot
from pipeline.events.chain import Position
from pipeline.events.records import Charge, Decision, Facts, SnapshotMark
from tests.bench.rows import Measurement

KEYS, ACCOUNTS, CELLS_EACH = 1_000_000, 20_000, 5
_BATCH = 200
_START = 1_790_000_000_000
_LOAD = f"{KEYS:,} idempotency keys, {ACCOUNTS * CELLS_EACH:,} cells, {ACCOUNTS:,} accounts in one partition"


class _Writer:
    """A broker that takes everything at once and keeps the last value of each key."""

    def __init__(self) -> None:
        self.contents: dict[bytes, bytes] = {}

    async def send_all(self, records: list[Any]) -> None:
        for _, _, key, value, _ in records:
            self.contents[key] = value


def measure() -> list[Measurement]:
    """Bytes and pauses of one ledger."""
    pauses: dict[str, float] = {}
    megabytes = asyncio.run(_scene(pauses))
    memory = Measurement("ledger", "memory of idempotency keys", f"{KEYS:,} keys", megabytes, "MB", 80, "<=")
    return [memory, *(Measurement("ledger", what, _LOAD, ms, "ms", 50, "<=") for what, ms in pauses.items())]


async def _scene(pauses: dict[str, float]) -> float:
    ledger, journal = Ledger(), UndoJournal()
    for decision in _decisions():
        ledger.apply(decision)
    gc.collect()
    # what is there is for ever: a collection that walks it is Python's pause, not the ledger's
    gc.freeze()
    before = _resident()
    async with _longest_pause("longest pause while keys come in", pauses):
        await _hold(ledger, journal, range(KEYS), _START)
    megabytes = (_resident() - before) / 1e6
    writer = _Writer()
    async with _longest_pause("longest pause while a snapshot is made", pauses):
        mark = await store_snapshot(writer, 0, 0, Position(), ledger)  # type: ignore[arg-type]
    content = ledger.dump()
    async with _longest_pause("longest pause while a snapshot is read back", pauses):
        restored = await asyncio.to_thread(Ledger.load, content)
    if restored.digest() != mark.digest:
        raise RuntimeError("the snapshot is of another ledger")
    async with _longest_pause("longest pause at a snapshot's mark and while the keys of the day before go", pauses):
        ledger.begin()
        for _ in ledger.apply_mark(SnapshotMark(_START + KEYS, 0, mark.digest, 0, mark.chunks)):
            await asyncio.sleep(0)
        ledger.commit()
        await _hold(ledger, journal, range(KEYS, KEYS + KEYS // 5), _START + IDEMPOTENCY_MS)
    return megabytes


def _decisions() -> Iterator[Decision]:
    traced = (*text_features((Part("user", "What is a river?"),)), *sampling_features(RequestParameters()))
    for number in range(ACCOUNTS):
        facts = Facts(
            number, _START, "inference", key=f"key-{number}", client_request="r", session="s", counter=1,
            features=traced,
        )  # fmt: skip
        charges = tuple(
            Charge(f"p:principal-{number:06d}|limit-{limit}|rate|tokens", "rate", "tokens", 500, 10_000, 60_000)
            for limit in range(CELLS_EACH)
        )
        yield Decision(
            f"g1234567-0-{number}", facts, "admit", 0, tenant="t", principal=f"principal-{number:06d}", sequence=number,
            charges=charges,
        )  # fmt: skip


async def _hold(ledger: Ledger, journal: UndoJournal, numbers: range, start: int) -> None:
    keys = ledger.idempotency
    for first in range(numbers.start, numbers.stop, _BATCH):
        journal.begin()
        for number in range(first, min(first + _BATCH, numbers.stop)):
            name = digest_of(f"principal-{number % ACCOUNTS:06d}", f"order-{number}")
            keys.hold(name, ACCOUNTS + number, start + number - numbers.start, journal)
        journal.commit()
        ledger.position.time = start + first - numbers.start
        keys.release(ledger.time)
        await asyncio.sleep(0)


@asynccontextmanager
async def _longest_pause(what: str, pauses: dict[str, float]) -> AsyncIterator[None]:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    yield
    await asyncio.sleep(0.002)
    ticking.cancel()
    pauses[what] = longest * 1000


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
