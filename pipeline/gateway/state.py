"""One request through the door: register the waiter, sign, write, wait; cancel it when the client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from pipeline.control.table import ControlTable
from pipeline.errors import Retryable
from pipeline.events.codec import encode
from pipeline.events.ids import request_id
from pipeline.events.messages import Response
from pipeline.events.wire import MAX_VALUE_BYTES, CancelBody
from pipeline.gateway.access_log import AccessLog
from pipeline.gateway.auth import ApiCaller, authenticate, bearer_of
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.refusals import Refusal, because, unknown_result
from pipeline.gateway.replies import Opener
from pipeline.gateway.reply_partitions import LaneReader
from pipeline.gateway.settings import GatewaySettings
from pipeline.gateway.translate import TranslatedRequest
from pipeline.gateway.waiting import Waiter, WaitingRoom
from pipeline.gateway.writer import RequestWriter, now_ms
from pipeline.keys.vault import Vault

log = logging.getLogger(__name__)
REQUEST_HEADER = "x-sluice-request"
CLIENT_REQUEST_HEADER = "x-sluice-client-request"
STOCK_HEADER = "x-request-id"
"""Where stock clients look for the id that they log with an error."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A written request. ``request`` is its id everywhere behind the door, empty where only its client id is known."""

    client_request: str
    request: str
    waiter: Waiter
    seconds: float

    @property
    def headers(self) -> dict[str, str]:
        return named(self.client_request, self.request)


class GatewayState:
    """Everything that the routes share. Starts and ends with the application."""

    def __init__(self, settings: GatewaySettings, feed: ControlTable, vault: Vault) -> None:
        deployment = feed.control.require_deployment()
        settings.require_lane(deployment.partitions)
        self.settings, self.control, self.vault = settings, feed.control, vault
        self._feed = feed
        self.metrics = Metrics()
        bounds = settings.bounds
        self.writer = RequestWriter(settings.bootstrap, deployment.partitions, bounds.write_ms)
        self.room = WaitingRoom(self.metrics, bounds.held_requests, bounds.held_bytes)
        lanes = sorted({settings.lane, deployment.partitions - 1})
        self.lanes = [LaneReader(settings.bootstrap, n, self.room.deliver, self.metrics) for n in lanes]
        self.access = AccessLog(self.writer, self.metrics)
        self.stopping = asyncio.Event()
        self.following: asyncio.Task[None] | None = None
        """Reads ``control``; when it has ended, revoked keys would still get in."""
        self._cancels: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Readers stand at the end of their lanes and the broker is known. Raises Retryable or ConfigError."""
        await self.writer.start()
        for lane in self.lanes:
            await lane.start()

    async def close(self) -> None:
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=5)
        await self.access.flush()
        for lane in self.lanes:
            await lane.close()
        await self.writer.close()

    def faults(self) -> list[str]:
        """Why this gateway should get no traffic; empty when ready."""
        found = [f"responses[{n}] is not read" for n, lane in enumerate(self.lanes) if not lane.ready]
        if self.following is None or self.following.done():
            found.append("control is not followed")
        if not self.writer.up:
            found.append("no producer")
        if self.stopping.is_set():
            found.append("stopping")
        return found

    async def caller(self, header: str | None) -> ApiCaller:
        """Who sends this Authorization header. Raises Refusal.

        No key is called unknown before control was read up to now, so it works from the moment that it is made.
        """
        try:
            return authenticate(self.control, self.vault, header, now_ms())
        except Refusal as refusal:
            if refusal.code != "unknown_key" or bearer_of(header) is None:
                raise
        if not await self._feed.caught_up():
            raise because("busy", retry_after_ms=1000)
        return authenticate(self.control, self.vault, header, now_ms())

    def claimed(self, header: str | None) -> tuple[str, str]:
        """Key id and tenant that a refused caller named, where control knows them; for the access log."""
        parsed = bearer_of(header)
        held = self.control.keys.get(parsed[0]) if parsed else None
        principal = self.control.principals.get(held.principal) if held else None
        return (held.id if held else "unknown", principal.tenant if principal else "")

    def opener(self, tenant: str) -> Opener:
        """Opens what is sealed in a response for its tenant."""

        def open_field(response: Response, field: str, sealed: bytes) -> bytes:
            return self.vault.decrypt(tenant, "response", field, response.client_request, sealed)

        return open_field

    @contextlib.asynccontextmanager
    async def open(self, caller: ApiCaller, ask: TranslatedRequest) -> AsyncIterator[PendingRequest]:
        """The written request. Leaving with the client gone writes a cancel record. Raises Refusal."""
        if self.room.open >= self.settings.bounds.open_requests or self.faults():
            raise because("busy", retry_after_ms=1000)
        client_request = mint(caller)
        value = self._value(caller, client_request, ask)
        name = (caller.tenant.id, client_request)
        waiter = self.room.enter(name, self.opener(caller.tenant.id))
        write = asyncio.create_task(self._write(caller, client_request, value, waiter, bool(ask.body.idempotency)))
        try:
            request = await asyncio.shield(write)
            waiter.known_as(request)
            seconds = (ask.body.timeout_ms + self.settings.bounds.grace_ms) / 1000
            yield PendingRequest(client_request, request, waiter, seconds)
        except (asyncio.CancelledError, ConnectionError):
            if waiter.reply.end is None:
                self._cancel_after(write, caller, client_request)
            raise
        finally:
            self.room.leave(name)

    async def cancel(self, caller: ApiCaller, client_request: str) -> None:
        """Write the cancel record of a request. Raises Retryable."""
        value = encode(CancelBody(client_request))
        await self.writer.send(caller, mint(caller), "cancel", value, self.settings.lane)
        self.metrics.count("sluice_gateway_cancels_total")

    def _value(self, caller: ApiCaller, client_request: str, ask: TranslatedRequest) -> bytes:
        sealed = self.vault.encrypt(caller.tenant.id, "request", "messages", client_request, ask.messages)
        value = encode(msgspec.structs.replace(ask.body, sealed=sealed))
        if len(value) > MAX_VALUE_BYTES:
            raise because("input_too_long")
        return value

    async def _write(
        self, caller: ApiCaller, client_request: str, value: bytes, waiter: Waiter, idempotent: bool
    ) -> str:
        try:
            partition, offset = await self.writer.send(caller, client_request, "inference", value, self.settings.lane)
        except Retryable as error:
            self.metrics.count("sluice_gateway_unknown_writes_total")
            log.warning("%s", error)
            if waiter.heard:
                return ""
            raise unknown_result(idempotent, named(client_request, "")) from None
        return request_id(self.control.generation, partition, offset) if offset >= 0 else ""

    def _cancel_after(self, write: asyncio.Task[str], caller: ApiCaller, client_request: str) -> None:
        async def job() -> None:
            # the record must be written before its cancel record, and its own fault has nobody to hear it
            with contextlib.suppress(Refusal):
                await write
            try:
                await self.cancel(caller, client_request)
            except (Retryable, Refusal) as error:
                log.warning("a cancel record was lost, the request runs to its end: %s", error)

        task = asyncio.create_task(job())
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)


def named(client_request: str, request: str) -> dict[str, str]:
    """The headers that name a request; ``request`` may not be known."""
    known = {CLIENT_REQUEST_HEADER: client_request, STOCK_HEADER: request or client_request}
    return {**known, REQUEST_HEADER: request} if request else known


def mint(caller: ApiCaller) -> str:
    """A client request id under the principal's name, which is what lets only that principal ask for it later."""
    return f"{caller.principal.id}:{uuid.uuid4().hex}"
