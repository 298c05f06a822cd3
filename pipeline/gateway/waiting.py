"""Open requests of this gateway: a waiter for each, found by the responses that come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pipeline.events.messages import Response
from pipeline.gateway.limits import SeenLimits
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.replies import Opener, Reply
from pipeline.gateway.response_cache import ResponseCache, ResponseKey
from pipeline.gateway.tenant_shares import TenantShares


class Waiter:
    """One open request: its reply so far, and an event for each change.

    Responses are kept back until the request's own id is known: a replayed copy of the record, refused under the same
    client request id, must not end it.
    """

    def __init__(self, opener: Opener) -> None:
        self.reply = Reply(opener)
        self._undelivered = bytearray()
        self._changed = asyncio.Event()
        self.answered = False
        """True once any response came back, so the request is known to be written."""
        self._request: str | None = None
        self._early: list[Response] = []

    def set_request(self, request: str) -> None:
        """Take the id of the written record. Empty where it could not be learnt: then any response counts."""
        self._request = request
        early = self._early
        self._early = []
        for response in early:
            self.deliver(response)

    def deliver(self, response: Response) -> None:
        """Add a response to the reply, unless it belongs to another record."""
        self.answered = True
        if self._request is None:
            self._early.append(response)
            return
        if self._request not in ("", response.request):
            return
        text = self.reply.add(response)
        self._undelivered += text
        if text or self.reply.end is not None:
            self._changed.set()

    async def texts(self, seconds: float, idle_s: float) -> AsyncIterator[str]:
        """Yield text as it arrives, empty after ``idle_s`` without any, until the reply ends. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            left = deadline - loop.time()
            if not self._changed.is_set():
                if left <= 0:
                    raise TimeoutError
                try:
                    async with asyncio.timeout(min(left, idle_s)):
                        await self._changed.wait()
                except TimeoutError:
                    if left > idle_s:
                        yield ""
                    continue
            self._changed.clear()
            text = bytes(self._undelivered)
            self._undelivered.clear()
            if text:
                yield text.decode("utf-8", "replace")
            if self.reply.end is not None:
                return

    async def wait_end(self, seconds: float) -> Reply:
        """Return the reply once it has ended. Raises TimeoutError."""
        async for _ in self.texts(seconds, seconds):
            pass
        return self.reply


class ResponseRouter:
    """Delivers each response to its waiter, or to the cache where none waits, and keeps queue positions."""

    def __init__(self, metrics: Metrics, max_requests: int, max_bytes: int) -> None:
        self.cache = ResponseCache(metrics, max_requests, max_bytes)
        self.limits = SeenLimits()
        self._metrics = metrics
        self._waiters: dict[ResponseKey, Waiter] = {}
        self._positions: TenantShares[Response] = TenantShares(max_requests)
        """The newest queue position of each request that has not begun."""

    @property
    def open_requests(self) -> int:
        """The number of requests that wait for their answer."""
        return len(self._waiters)

    def register(self, key: ResponseKey, opener: Opener) -> Waiter:
        """Make a waiter. It comes before the record is produced, so that no response can come too early."""
        waiter = self._waiters[key] = Waiter(opener)
        self._metrics.level("sluice_gateway_open_requests", len(self._waiters))
        return waiter

    def unregister(self, key: ResponseKey) -> None:
        """Drop the waiter; later responses go to the cache."""
        waiter = self._waiters.pop(key, None)
        if waiter is not None and waiter.reply.moved:
            self._metrics.count("sluice_gateway_attempts_moved_total", by=waiter.reply.moved)
        self._metrics.level("sluice_gateway_open_requests", len(self._waiters))

    def deliver(self, response: Response) -> None:
        """Hand one response to its waiter or to the cache."""
        key = (response.tenant, response.client_request)
        self._positions.pop(key)
        if response.quota is not None:
            self.limits.add(response.quota)
        if response.event == "place":
            self._positions.put(key, response)
            return
        waiter = self._waiters.get(key)
        if waiter is not None:
            waiter.deliver(response)
        else:
            self.cache.add(key, response)

    def queue_position(self, key: ResponseKey) -> Response | None:
        """The newest position in a worker's queue; None where the request runs, has ended, or none was announced."""
        return self._positions.get(key)
