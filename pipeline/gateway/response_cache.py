"""A bounded cache of responses that came while no caller waited, for a later ``GET /v1/requests/{id}``.

Each tenant has its share of it, and refusals are held least: a tenant that is refused without end pushes out its own
refusals, and no answer of anybody's.
"""

from __future__ import annotations

import asyncio

from pipeline.events.messages import Response
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.replies import Opener, Reply
from pipeline.gateway.tenant_shares import TenantKey, TenantShares

ResponseKey = TenantKey
"""(tenant, client request id); cached responses are found by (tenant, request id) as well."""
_OVERHEAD_BYTES = 512
"""Memory of one cached response beside its texts, about."""


class HeldResponses:
    """The responses to one request."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.size = 0
        self.refused = True
        """Nothing but refusals came."""

    def add(self, response: Response) -> None:
        self.responses.append(response)
        self.size += len(response.sealed) + len(response.prefix) + len(response.client_request) + _OVERHEAD_BYTES
        self.refused &= response.event == "refusal"


class ResponseCache:
    """Responses by request; of the tenant that holds most, refusals go first, then the oldest request."""

    def __init__(self, metrics: Metrics, max_requests: int, max_bytes: int) -> None:
        self._metrics = metrics
        self._responses: TenantShares[HeldResponses] = TenantShares(max_requests, max_bytes)
        self._key_of: dict[ResponseKey, ResponseKey] = {}
        """(tenant, request id) to key: the caller of a refused repeat knows the first request by that id alone."""
        self._arrivals: dict[ResponseKey, set[asyncio.Event]] = {}

    def add(self, key: ResponseKey, response: Response) -> None:
        """Keep a response and wake the callers that ask for its request."""
        by_request = (response.tenant, response.request)
        self._key_of[by_request] = key
        held = self._responses.get(key) or HeldResponses()
        held.add(response)
        for gone in self._responses.put(key, held, held.size, least=held.refused):
            for each in gone.responses:
                self._key_of.pop((each.tenant, each.request), None)
        self._metrics.level("sluice_gateway_held_requests", self._responses.count)
        self._metrics.level("sluice_gateway_held_bytes", self._responses.size)
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
        held = self._responses.get(self._key_of.get(key, key))
        cached = held.responses if held else []
        prefix = f"{owner}:" if owner else ""
        if key in self._key_of:
            request = key[1]
        else:
            request = next((response.request for response in cached if response.reason != "replayed"), "")
        return [r for r in cached if r.request == request and r.client_request.startswith(prefix)]
