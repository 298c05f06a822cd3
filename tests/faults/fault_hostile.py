"""Callers that do what no well-behaved one does: garbage, one client id for many requests, copies of signed records."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections import Counter
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from msgspec import json

from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Retryable
from pipeline.events import wire
from pipeline.events.wire import CancelBody
from pipeline.kafka.clients import make_producer
from pipeline.producer.client import Producer
from pipeline.producer.outcomes import Refused
from pipeline.topics import partition_of

_MOST, _PAUSE_S = 400, 0.3
_GARBAGE_BYTES = 2_000


class RepeatingProducer(Producer):
    """A producer whose client request ids come back, for requests and for cancels alike."""

    _minted = ""

    def mint(self) -> str:
        again, self._minted = self._minted, ""
        if not again:
            again = self._minted = super().mint()
        return again


class Hostile:
    """Writes to ``requests`` until ``stop``, a bounded number of records; ``done`` counts what was confirmed."""

    def __init__(self, url: str, kafka: KafkaEndpoint, partitions: int, key: str, seed: int) -> None:
        self._url, self._kafka, self._partitions = url, kafka, partitions
        self._key = key
        self._chance = random.Random(seed + 2)
        self._raw: AIOKafkaProducer | None = None
        self._repeating: RepeatingProducer | None = None
        self.garbage: set[tuple[int, int]] = set()
        """Partition and offset of records that mean nothing."""
        self.done: Counter[str] = Counter()
        self.stop = asyncio.Event()

    async def run(self) -> None:
        acts = (self._write_garbage, self._write_garbage, self._use_one_id_twice, self._write_copies)
        try:
            for _ in range(_MOST):
                if self.stop.is_set():
                    return
                # what is not confirmed is not counted; whether it is in the log is the log's to say
                with contextlib.suppress(Retryable, Refused, KafkaError, TimeoutError):
                    await asyncio.wait_for(self._chance.choice(acts)(), 20)
                await asyncio.sleep(_PAUSE_S * self._chance.uniform(0.5, 1.5))
        finally:
            await self._close()

    async def _close(self) -> None:
        with contextlib.suppress(KafkaError, TimeoutError):
            if self._raw is not None:
                await asyncio.wait_for(self._raw.stop(), 20)
            if self._repeating is not None:
                await asyncio.wait_for(self._repeating.close(), 20)

    async def _write_garbage(self) -> None:
        key = self._chance.choice((None, b"", b"acme", b"no-such-organisation"))
        headers = self._chance.choice(([], [("sluice-key", b"\xff")], [("a", b"1"), ("a", b"2")]))
        value = self._chance.randbytes(self._chance.randrange(_GARBAGE_BYTES))
        sent = await self._write(self._chance.randrange(self._partitions), key, value, headers)
        self.garbage.add((sent.partition, sent.offset))
        self.done["garbage"] += 1

    async def _use_one_id_twice(self) -> None:
        if self._repeating is None:
            producer = RepeatingProducer(self._url, self._key)
            await producer.start()
            self._repeating = producer
        tickets = [await self._repeating.submit("the same name again", model="echo", max_tokens=16) for _ in range(2)]
        self.done["client ids used twice"] += tickets[0].client_request == tickets[1].client_request
        if self._chance.random() < 0.5:
            await tickets[0].cancel()
            self.done["cancels of such an id"] += 1

    async def _write_copies(self) -> None:
        """One signed record three times: all but the first are replays."""
        key, _, secret = self._key.removeprefix("sk-sluice-").rpartition(".")
        value = json.encode(CancelBody(f"{key}:none"))
        name, now = f"{key}:{self._chance.randrange(1 << 60)}", now_ms()
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        headers = wire.sign(raw, key, name, "cancel", value, time=now, session=name[-20:], counter=1)
        for _ in range(3):
            await self._write(partition_of(b"acme", self._partitions), b"acme", value, headers)
            self.done["copies of a signed record"] += 1

    async def _write(self, partition: int, key: bytes | None, value: bytes, headers: Any) -> Any:
        if self._raw is None:
            raw = make_producer(self._kafka)
            try:
                await raw.start()
            except BaseException:
                await raw.stop()
                raise
            self._raw = raw
        return await self._raw.send_and_wait("requests", value, key=key, partition=partition, headers=headers)
