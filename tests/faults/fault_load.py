"""Callers at both doors who never give a request up: again with the same idempotency key, until told how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from pipeline.errors import Retryable
from pipeline.producer.client import Producer
from pipeline.producer.outcomes import Refused

Door = Literal["chat", "stream", "record", "cancel", "twice"]
"""``cancel`` asks for an early end at once; ``twice`` is two calls at the same time with one idempotency key."""
BROKEN, ANSWERED = "connection broken", "answered"
AGAIN = {
    BROKEN,
    "unknown_result",
    "busy",
    "incomplete",
    "expired",
    "failed",
    "deadline_passed",
    "not confirmed",
    "no answer",
}
REFUSED = {"duplicate", "rate_limited", "too_many_open", "budget_exhausted"}
"""What a genuine, well-behaved caller may be told in the end, beside the answer."""
CANCELLED = "cancelled"
_PAUSE_S, _ASK_S = 0.5, 4.0
_PATIENCE_S = 600.0
"""Longer than a gateway may be away: one that meets no broker ends after 90 s and is started again, later each time."""
PROMPTS = (
    "the river runs past the old mill and on to the sea",
    "a letter came in the morning and nobody had opened it by noon",
    "winter is long in the hills and the roads are quiet then",
    (
        "music from the house across the garden went on until late while the rain fell on the roof and on the bridge "
        "and the last boats came home one by one with their lamps lit and their nets full of silver fish"
    ),
)


@dataclass(slots=True)
class Try:
    """One attempt and how it ended."""

    began: float
    ended: float
    result: str
    request: str = ""
    """Id of the request in the log, where the caller was told one."""


@dataclass(slots=True)
class Call:
    """One thing that a caller wanted, over all attempts."""

    who: str
    door: Door
    key: str
    prompt: str
    tries: list[Try] = field(default_factory=list)
    request: str = ""
    text: str = ""
    usage: tuple[int, int] = (0, 0)

    @property
    def result(self) -> str:
        return self.tries[-1].result if self.tries else "never sent"

    @property
    def ends(self) -> set[str]:
        """Results that a genuine caller of this kind may be told in the end."""
        return REFUSED | {ANSWERED} | ({CANCELLED} if self.door == "cancel" else set())


class Crowd:
    """Runs callers until ``stop``; every call goes on until its end is known, or patience ends."""

    def __init__(self, url: str, keys: dict[str, str], seed: int, timeout_ms: int, most: int) -> None:
        self._url, self._keys, self._timeout_ms, self._most = url, keys, timeout_ms, most
        self._random = random.Random(seed)
        self.calls: list[Call] = []
        self.answered = 0
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Callers by HTTP and by Kafka. The free tenant's ask far more often than ten times a minute."""
        doors: list[tuple[str, Door, float]] = [
            *(("acme-http", "chat", 0.1), ("acme-http", "stream", 0.1)) * 4,
            *(("globex-http", "chat", 0.3), ("globex-http", "stream", 0.3)),
            *(("initech-http", "chat", 1.0), ("initech-http", "stream", 1.0)),
            *(("acme-records", "record", 0.2),) * 2,
            *(("globex-records", "record", 0.5), ("initech-records", "record", 1.0)),
            *(("acme-records", "cancel", 0.5), ("globex-records", "cancel", 1.0), ("acme-http", "twice", 0.5)),
        ]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)) as session:
            await asyncio.gather(*(self._caller(session, *door) for door in doors))

    @property
    def finals(self) -> Counter[str]:
        return Counter(call.result for call in self.calls)

    async def _caller(self, session: aiohttp.ClientSession, who: str, door: Door, pause_s: float) -> None:
        sender = _Sender(self._url, self._keys[who])
        try:
            while not self.stop.is_set() and len(self.calls) < self._most:
                key, prompt = uuid.uuid4().hex, self._random.choice(PROMPTS)
                calls = [Call(who, door, key, prompt) for _ in range(2 if door == "twice" else 1)]
                self.calls += calls
                await asyncio.gather(*(self._until_ended(session, sender, call) for call in calls))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), pause_s * self._random.uniform(0.5, 1.5))
        finally:
            await sender.close()

    async def _until_ended(self, session: aiohttp.ClientSession, sender: _Sender, call: Call) -> None:
        given_up = time.monotonic() + _PATIENCE_S
        while not call.tries or time.monotonic() < given_up:
            began, call.request = time.monotonic(), ""
            direct = call.door in ("record", "cancel")
            result = await (self._record(sender, call) if direct else self._ask(session, call))
            call.tries.append(Try(began, time.monotonic(), result, call.request))
            self.answered += result == ANSWERED
            if result not in AGAIN:
                break
            await asyncio.sleep(_PAUSE_S)

    async def _ask(self, session: aiohttp.ClientSession, call: Call) -> str:
        body = {
            "model": "echo",
            "messages": [{"role": "user", "content": call.prompt}],
            "max_tokens": 64,
            "timeout_ms": self._timeout_ms,
            "stream": call.door == "stream",
        }
        if call.door == "stream":
            body["stream_options"] = {"include_usage": True}
        headers = {"Authorization": f"Bearer {self._keys[call.who]}", "Idempotency-Key": call.key}
        try:
            async with session.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as answer:
                call.request = answer.headers.get("x-sluice-request", "")
                if answer.content_type == "text/event-stream":
                    return await _read_stream(_events(answer), call)
                return _whole(json.loads(await answer.read()), call)
        except aiohttp.ClientError:
            return BROKEN
        except TimeoutError:
            return "left without an answer"
        except (ValueError, KeyError, TypeError) as error:
            return f"malformed answer: {error!r}"

    async def _record(self, sender: _Sender, call: Call) -> str:
        try:
            producer = await sender.ready()
            ticket = await producer.submit(
                call.prompt, model="echo", max_tokens=64, timeout_ms=self._timeout_ms, idempotency=call.key
            )
            call.request = ticket.request
            if call.door == "cancel":
                await asyncio.sleep(self._random.uniform(0, 0.1))
                await ticket.cancel()
        except Refused as refused:
            return refused.code
        except Retryable:
            return "not confirmed"
        try:
            answer = await ticket.result(_ASK_S)
        except Refused as refused:
            return refused.code
        except Retryable:
            return "no answer"
        call.request, call.text = answer.request, answer.text
        call.usage = (answer.usage.input_tokens, answer.usage.output_tokens)
        return ANSWERED


class _Sender:
    """A direct producer that is made again where it could not start."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key
        self._producer: Producer | None = None

    async def ready(self) -> Producer:
        if self._producer is None:
            producer = Producer(self._url, self._key)
            await producer.start()
            self._producer = producer
        return self._producer

    async def close(self) -> None:
        if self._producer is not None:
            await self._producer.close()


def _whole(document: Any, call: Call) -> str:
    if "error" in document:
        return str(document["error"]["code"])
    call.text = document["choices"][0]["message"]["content"]
    call.usage = (document["usage"]["prompt_tokens"], document["usage"]["completion_tokens"])
    return ANSWERED


async def _read_stream(events: AsyncIterator[str], call: Call) -> str:
    """A stream ends with the end mark or with an error event; anything else is a broken connection."""
    call.text = ""
    async for event in events:
        if event == "[DONE]":
            return ANSWERED
        document = json.loads(event)
        if "error" in document:
            return str(document["error"]["code"])
        call.text += "".join(choice["delta"].get("content") or "" for choice in document["choices"])
        if document.get("usage"):
            call.usage = (document["usage"]["prompt_tokens"], document["usage"]["completion_tokens"])
    return BROKEN


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    async for line in answer.content:
        if line.startswith(b"data: ") and line.endswith(b"\n"):
            yield line[6:].decode().strip()
