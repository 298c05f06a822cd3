"""Who waits for which response, and a bounded store of responses that nobody waited for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator

from pipeline.events.messages import Response
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.replies import Opener, Reply

Name = tuple[str, str]
"""(tenant, client request id); what is held is found by (tenant, request id) as well"""


class Waiter:
    """One open request at this gateway: its reply so far, and a bell for each change.

    Responses wait until the request's own id is known: a replayed copy of the record, refused under the same
    client request id, must not end it.
    """

    def __init__(self, opener: Opener) -> None:
        self.reply = Reply(opener)
        self._fresh = bytearray()
        self._bell = asyncio.Event()
        self.heard = False
        """Something came back, so the request is known to be written."""
        self._request: str | None = None
        self._early: list[Response] = []

    def known_as(self, request: str) -> None:
        """The id of the written record; empty where only its being written is known, then any response counts."""
        self._request = request
        early, self._early = self._early, []
        for response in early:
            self.feed(response)

    def feed(self, response: Response) -> None:
        self.heard = True
        if self._request is None:
            self._early.append(response)
            return
        if self._request not in ("", response.request):
            return
        fresh = self.reply.feed(response)
        self._fresh += fresh
        if fresh or self.reply.end is not None:
            self._bell.set()

    async def pieces(self, seconds: float, idle_s: float) -> AsyncIterator[str]:
        """Text as it arrives, empty after ``idle_s`` without any; ends with the reply. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            left = until - loop.time()
            if not self._bell.is_set():
                if left <= 0:
                    raise TimeoutError
                try:
                    async with asyncio.timeout(min(left, idle_s)):
                        await self._bell.wait()
                except TimeoutError:
                    if left > idle_s:
                        yield ""
                    continue
            self._bell.clear()
            text, self._fresh = bytes(self._fresh), bytearray()
            if text:
                yield text.decode("utf-8", "replace")
            if self.reply.end is not None:
                return

    async def ended(self, seconds: float) -> Reply:
        """The reply, once it has ended. Raises TimeoutError."""
        async for _ in self.pieces(seconds, seconds):
            pass
        return self.reply


class WaitingRoom:
    """Responses by (tenant, client request): to the waiter, else into the store, oldest out first."""

    def __init__(self, metrics: Metrics, held_requests: int, held_bytes: int) -> None:
        self._metrics, self._most, self._most_bytes = metrics, held_requests, held_bytes
        self._waiters: dict[Name, Waiter] = {}
        self._held: OrderedDict[Name, list[Response]] = OrderedDict()
        self._requests: dict[Name, Name] = {}
        """(tenant, request id) of what is held -> its name: a refused repeat knows the first request by that alone."""
        self._bytes = 0
        self._places: OrderedDict[Name, Response] = OrderedDict()
        """The newest word on where a request stands that has not begun, oldest out first."""
        self._bells: dict[Name, set[asyncio.Event]] = {}

    @property
    def open(self) -> int:
        return len(self._waiters)

    def enter(self, name: Name, opener: Opener) -> Waiter:
        """Register before producing, so that no response can come too early."""
        waiter = self._waiters[name] = Waiter(opener)
        self._metrics.level("sluice_gateway_open_requests", len(self._waiters))
        return waiter

    def leave(self, name: Name) -> None:
        """Later responses go to the store."""
        waiter = self._waiters.pop(name, None)
        if waiter is not None and waiter.reply.moved:
            self._metrics.count("sluice_gateway_attempts_moved_total", by=waiter.reply.moved)
        self._metrics.level("sluice_gateway_open_requests", len(self._waiters))

    def deliver(self, response: Response) -> None:
        name = (response.tenant, response.client_request)
        self._places.pop(name, None)
        if response.event == "place":
            self._places[name] = response
            if len(self._places) > self._most:
                self._places.popitem(last=False)
            return
        waiter = self._waiters.get(name)
        if waiter is not None:
            waiter.feed(response)
            return
        self._hold(name, response)
        for known in (name, (response.tenant, response.request)):
            for bell in self._bells.get(known, ()):
                bell.set()

    def queue_position(self, name: Name) -> Response | None:
        """Where a request stands in a worker's queue; None where it runs, has ended, or nothing was told."""
        return self._places.get(name)

    def client_request(self, name: Name) -> str:
        """The client's own id of a request that is asked for by either id."""
        return self._requests.get(name, name)[1]

    async def held(self, name: Name, opener: Opener, seconds: float, owner: str = "") -> Reply | None:
        """The reply of a request that nobody waited for, as of its end or after ``seconds``; None if none came.

        What is not of the principal ``owner`` reads as not there; empty: of any.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        bell = asyncio.Event()
        self._bells.setdefault(name, set()).add(bell)
        try:
            while not self._complete(name, owner) and loop.time() < until:
                bell.clear()
                try:
                    async with asyncio.timeout_at(until):
                        await bell.wait()
                except TimeoutError:
                    break
        finally:
            bells = self._bells[name]
            bells.discard(bell)
            if not bells:
                del self._bells[name]
        found = self._own(name, owner)
        if not found:
            return None
        reply = Reply(opener)
        for response in found:
            reply.feed(response)
        return reply

    def _complete(self, name: Name, owner: str) -> bool:
        return any(r.event != "chunk" for r in self._own(name, owner))

    def _own(self, name: Name, owner: str) -> list[Response]:
        """Held responses of the request itself, those to replayed copies of it left out."""
        found = self._held.get(self._requests.get(name, name), [])
        whose = f"{owner}:" if owner else ""
        request = name[1] if name in self._requests else next((r.request for r in found if r.reason != "replayed"), "")
        return [r for r in found if r.request == request and r.client_request.startswith(whose)]

    def _hold(self, name: Name, response: Response) -> None:
        self._held.setdefault(name, []).append(response)
        self._requests[name[0], response.request] = name
        self._bytes += _size(response)
        while self._held and (len(self._held) > self._most or self._bytes > self._most_bytes):
            _, gone = self._held.popitem(last=False)
            self._bytes -= sum(map(_size, gone))
            for one in gone:
                self._requests.pop((one.tenant, one.request), None)
        self._metrics.level("sluice_gateway_held_requests", len(self._held))
        self._metrics.level("sluice_gateway_held_bytes", self._bytes)


def _size(response: Response) -> int:
    """About what one held response costs in memory."""
    return len(response.sealed) + len(response.prefix) + len(response.client_request) + 512
