"""A bounded cache of responses that came while no caller waited, for a later ``GET /v1/requests/{id}``."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from pipeline.events.messages import Response
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.replies import Opener, Reply

ResponseKey = tuple[str, str]
"""(tenant, client request id); cached responses are found by (tenant, request id) as well."""
_OVERHEAD_BYTES = 512
"""Memory of one cached response beside its texts, about."""


class ResponseCache:
    """Responses by request, the oldest request out first."""

    def __init__(self, metrics: Metrics, max_requests: int, max_bytes: int) -> None:
        self._metrics = metrics
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._responses: OrderedDict[ResponseKey, list[Response]] = OrderedDict()
        self._key_of: dict[ResponseKey, ResponseKey] = {}
        """(tenant, request id) to key: the caller of a refused repeat knows the first request by that id alone."""
        self._bytes = 0
        self._arrivals: dict[ResponseKey, set[asyncio.Event]] = {}

    def add(self, key: ResponseKey, response: Response) -> None:
        """Keep a response and wake the callers that ask for its request."""
        by_request = (response.tenant, response.request)
        self._responses.setdefault(key, []).append(response)
        self._key_of[by_request] = key
        self._bytes += _size(response)
        while self._responses and (len(self._responses) > self._max_requests or self._bytes > self._max_bytes):
            self._evict_oldest()
        self._metrics.level("sluice_gateway_held_requests", len(self._responses))
        self._metrics.level("sluice_gateway_held_bytes", self._bytes)
        for alias in (key, by_request):
            for arrival in self._arrivals.get(alias, ()):
                arrival.set()

    def client_request(self, key: ResponseKey) -> str:
        """The client's own id of a request that is asked for by either id."""
        return self._key_of.get(key, key)[1]

    async def wait_reply(self, key: ResponseKey, opener: Opener, seconds: float, owner: str = "") -> Reply | None:
        """The cached reply, as of its end or after ``seconds``; None if no response came.

        The request of another principal than ``owner`` reads as absent; empty: of any principal.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        arrival = asyncio.Event()
        self._arrivals.setdefault(key, set()).add(arrival)
        try:
            while not self._has_ended(key, owner) and loop.time() < deadline:
                arrival.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await arrival.wait()
                except TimeoutError:
                    break
        finally:
            waiting = self._arrivals[key]
            waiting.discard(arrival)
            if not waiting:
                del self._arrivals[key]
        responses = self._of(key, owner)
        if not responses:
            return None
        reply = Reply(opener)
        for response in responses:
            reply.add(response)
        return reply

    def _has_ended(self, key: ResponseKey, owner: str) -> bool:
        return any(response.event != "chunk" for response in self._of(key, owner))

    def _of(self, key: ResponseKey, owner: str) -> list[Response]:
        """Cached responses of the request itself; those to replayed copies of its record are left out."""
        cached = self._responses.get(self._key_of.get(key, key), [])
        prefix = f"{owner}:" if owner else ""
        if key in self._key_of:
            request = key[1]
        else:
            request = next((response.request for response in cached if response.reason != "replayed"), "")
        return [r for r in cached if r.request == request and r.client_request.startswith(prefix)]

    def _evict_oldest(self) -> None:
        _, responses = self._responses.popitem(last=False)
        for response in responses:
            self._bytes -= _size(response)
            self._key_of.pop((response.tenant, response.request), None)


def _size(response: Response) -> int:
    return len(response.sealed) + len(response.prefix) + len(response.client_request) + _OVERHEAD_BYTES
