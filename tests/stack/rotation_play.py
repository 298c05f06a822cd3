"""Requests without a pause, over HTTP and by a direct producer, beside a running stack: what failed is kept."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import aiohttp

from pipeline.errors import PipelineError
from pipeline.producer.client import Producer
from tests.patience import STUCK_S

BODY = {"prompt": "What is a dog?", "model": "echo", "max_tokens": 8}
PAUSE_S = 0.02


class SteadyLoad:
    """Asks from a thread until it is left; ``answered`` counts by kind, ``failed`` says what else came back."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.restarts = 0
        """Requests that were under way in a gateway that was killed."""
        self._kills = self._back = 0

    def __enter__(self) -> SteadyLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STUCK_S)

    def more(self, count: int = 10) -> None:
        """Wait until so many more were answered of each kind, and none failed."""
        before, end = Counter(self.answered), time.monotonic() + STUCK_S
        while any(self.answered[kind] < before[kind] + count for kind in ("http", "direct")):
            assert not self.failed, self.failed
            assert self._thread.is_alive()
            assert time.monotonic() < end, (before, self.answered)
            time.sleep(0.05)

    async def _run(self) -> None:
        await asyncio.gather(self._ask(), self._ask(), self._produce())

    def gateway_killed(self) -> None:
        """Hear of a kill: what is under way is lost, and nothing is answered before the next gateway is ready."""
        self._kills += 1

    async def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while not self._stop.is_set():
                begun = self._kills
                try:
                    async with session.post(f"{self._url}/inference", json=BODY) as answer:
                        good, said = answer.status == 200, f"{answer.status} {await answer.text()}"
                except (aiohttp.ClientError, OSError) as error:
                    good, said = False, type(error).__name__
                self._count("http", begun, good, said)
                await asyncio.sleep(PAUSE_S)

    async def _produce(self) -> None:
        async with Producer(self._url, self._key) as producer:
            while not self._stop.is_set():
                begun = self._kills
                ticket = await producer.submit("What is a cat?", model="echo", max_tokens=8)
                good, said = False, "no outcome"
                while not good and begun == self._kills:
                    try:
                        good = bool((await producer.answer(ticket.client_request, 10)).text)
                    except PipelineError as error:
                        said = f"{type(error).__name__} {error}"
                        break
                self._count("direct", begun, good, said)
                await asyncio.sleep(PAUSE_S)

    def _count(self, kind: str, begun: int, good: bool, said: str) -> None:
        self.answered[kind] += good
        if good:
            self._back = max(self._back, begun)
        elif begun < self._kills or self._back < self._kills:
            self.restarts += 1
        else:
            self.failed.append(f"{kind}: {said[:300]}")
