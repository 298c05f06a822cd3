"""The state that all routes share, and the life of one request: register, sign, write, wait, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from pipeline.control.table import ControlTable
from pipeline.errors import Retryable
from pipeline.events.codec import encode
from pipeline.events.ids import request_id
from pipeline.events.messages import Response
from pipeline.events.wire import MAX_VALUE_BYTES, CancelBody
from pipeline.gateway.access_log import AccessLog
from pipeline.gateway.auth import ApiCaller, Authenticator, bearer_of
from pipeline.gateway.certificate import ServedCertificate
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.refusals import Refusal, because, unknown_result
from pipeline.gateway.replies import Opener
from pipeline.gateway.reply_partitions import ReplyPartitionReader
from pipeline.gateway.settings import GatewaySettings
from pipeline.gateway.tenant_calls import TenantCalls
from pipeline.gateway.translate import TranslatedRequest
from pipeline.gateway.waiting import ResponseRouter, Waiter
from pipeline.gateway.writer import RequestWriter
from pipeline.gateway.wrong_keys import WrongKeys
from pipeline.keys.vault import Vault
from pipeline.process_status import ProcessStatus

log = logging.getLogger(__name__)
REQUEST_HEADER = "x-sluice-request"
CLIENT_REQUEST_HEADER = "x-sluice-client-request"
STOCK_HEADER = "x-request-id"
"""Stock clients log the id in this header with an error."""


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A written request. ``request`` is its id behind the gateway, empty where only its client id is known."""

    client_request: str
    request: str
    waiter: Waiter
    seconds: float

    @property
    def headers(self) -> dict[str, str]:
        return naming_headers(self.client_request, self.request)


class GatewayState:
    """Starts and ends with the application."""

    def __init__(self, settings: GatewaySettings, control_table: ControlTable, vault: Vault) -> None:
        deployment = control_table.control.require_deployment()
        settings.require_reply_partition(deployment.partitions)
        bounds = settings.bounds
        self.settings = settings
        self.control = control_table.control
        self.vault = vault
        self.metrics = Metrics()
        self.certificate = _certificate(settings, self.metrics)
        self.writer = RequestWriter(settings.kafka, deployment.partitions, bounds.write_ms)
        self.responses = ResponseRouter(self.metrics, bounds.held_requests, bounds.held_bytes)
        self.calls = TenantCalls(bounds.open_requests)
        # direct producers, which name no reply partition, are answered in the last one
        self.readers = [
            ReplyPartitionReader(settings.kafka, partition, self.responses.deliver, self.metrics, self._learn_keys)
            for partition in sorted({settings.reply_partition, deployment.partitions - 1})
        ]
        self.wrong_keys = WrongKeys(self.metrics)
        self._caught_up = control_table.caught_up
        self._authenticator = Authenticator(self.control, vault, self._caught_up, self.wrong_keys)
        self.access = AccessLog(self.writer, self.metrics, self.wrong_keys)
        self.stopping = asyncio.Event()
        self.following: asyncio.Task[None] | None = None
        """Reads ``control``; when it has ended, revoked keys would still get in."""
        self._cancels: set[asyncio.Task[None]] = set()
        self.status = ProcessStatus("gateway")
        self._control_table = control_table

    def tell(self, status: ProcessStatus) -> None:
        """Let the status of this process be asked for what is known here."""
        self.status = status
        status.checks.append(self.faults)
        status.renderers.append(self.metrics.render)
        for source in (self._control_table.readings, *(reader.lag for reader in self.readers)):
            status.add(source)

    async def start(self) -> None:
        """Connect to the broker and stand at the end of the reply partitions. Raises Retryable or ConfigError."""
        await self.writer.start()
        for reader in self.readers:
            await reader.start()

    async def close(self) -> None:
        """Write what is counted and stop the clients."""
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=5)
        await self.access.flush()
        for reader in self.readers:
            await reader.close()
        await self.writer.close()

    def connections_changed(self, count: int, reaped: int) -> None:
        """Take the number of open connections, and how many were closed to make room."""
        self.metrics.level("sluice_gateway_connections", count)
        if reaped:
            self.metrics.count("sluice_gateway_reaped_connections_total", by=reaped)

    def faults(self) -> list[str]:
        """Reasons to send this gateway no traffic; empty when ready."""
        faults = [f"responses[{reader.partition}] is not read" for reader in self.readers if not reader.ready]
        if self.following is None or self.following.done():
            faults.append("control is not followed")
        if not self.writer.up:
            faults.append("no producer")
        if self.stopping.is_set():
            faults.append("stopping")
        return faults

    async def authenticate(self, header: str | None, address: str = "") -> ApiCaller:
        """The caller that sends this Authorization header from this address. Raises Refusal."""
        return await self._authenticator.caller(header, address)

    def claimed_identity(self, header: str | None) -> tuple[str, str]:
        """Key id and tenant that a refused caller named, where control knows them; for the access log."""
        parsed = bearer_of(header)
        key = self.control.keys.get(parsed[0]) if parsed else None
        principal = self.control.principals.get(key.principal) if key else None
        return (key.id if key else "unknown", principal.tenant if principal else "")

    def opener(self, tenant: str) -> Opener:
        """A function that decrypts a field of a response for its tenant."""

        def open_field(response: Response, field: str, sealed: bytes) -> bytes:
            return self.vault.decrypt(tenant, "response", field, response.client_request, sealed)

        return open_field

    async def _learn_keys(self, responses: Sequence[Response]) -> None:
        """Read ``control`` to its end where an answer was sealed under a key that is not known here.

        Its worker had read the key's document before. One look for all of them. Raises Retryable where it fails.
        """
        for response in responses:
            sealed = response.sealed or response.logprobs
            if sealed and response.tenant in self.control.tenants and not self.vault.knows(response.tenant, sealed):
                if not await self._caught_up():
                    raise Retryable("control could not be read to its end, and answers name keys that are not known")
                return

    @contextlib.asynccontextmanager
    async def open(self, caller: ApiCaller, translated: TranslatedRequest) -> AsyncIterator[PendingRequest]:
        """Write the request. Leaving with the client gone writes a cancel record. Raises Refusal."""
        if self.faults():
            raise because("busy", retry_after_ms=1000)
        with self.calls.waiting(caller.tenant.id):
            async with self._opened(caller, translated) as pending:
                yield pending

    @contextlib.asynccontextmanager
    async def _opened(self, caller: ApiCaller, translated: TranslatedRequest) -> AsyncIterator[PendingRequest]:
        client_request = mint_client_request(caller)
        value = self._value(caller, client_request, translated)
        key = (caller.tenant.id, client_request)
        waiter = self.responses.register(key, self.opener(caller.tenant.id))
        write = asyncio.create_task(
            self._write(caller, client_request, value, waiter, bool(translated.body.idempotency))
        )
        try:
            request = await asyncio.shield(write)
            waiter.set_request(request)
            seconds = (translated.body.timeout_ms + self.settings.bounds.grace_ms) / 1000
            yield PendingRequest(client_request, request, waiter, seconds)
        except (asyncio.CancelledError, ConnectionError):
            if waiter.reply.end is None:
                self._cancel_after(write, caller, client_request)
            raise
        finally:
            self.responses.unregister(key)

    async def cancel(self, caller: ApiCaller, client_request: str) -> None:
        """Write the cancel record of a request. Raises Retryable."""
        value = encode(CancelBody(client_request))
        await self.writer.send(caller, mint_client_request(caller), "cancel", value, self.settings.reply_partition)
        self.metrics.count("sluice_gateway_cancels_total")

    def _value(self, caller: ApiCaller, client_request: str, translated: TranslatedRequest) -> bytes:
        sealed = self.vault.encrypt(caller.tenant.id, "request", "messages", client_request, translated.messages)
        value = encode(msgspec.structs.replace(translated.body, sealed=sealed))
        if len(value) > MAX_VALUE_BYTES:
            raise because("input_too_long")
        return value

    async def _write(
        self, caller: ApiCaller, client_request: str, value: bytes, waiter: Waiter, idempotent: bool
    ) -> str:
        try:
            partition, offset = await self.writer.send(
                caller, client_request, "inference", value, self.settings.reply_partition
            )
        except Retryable as error:
            self.metrics.count("sluice_gateway_unknown_writes_total")
            log.warning("%s", error)
            if waiter.answered:
                return ""
            raise unknown_result(idempotent, naming_headers(client_request, "")) from None
        return request_id(self.control.generation, partition, offset) if offset >= 0 else ""

    def _cancel_after(self, write: asyncio.Task[str], caller: ApiCaller, client_request: str) -> None:
        async def write_cancel() -> None:
            # the record must be written before its cancel record, and no caller is left to hear its own fault
            with contextlib.suppress(Refusal):
                await write
            try:
                await self.cancel(caller, client_request)
            except (Retryable, Refusal) as error:
                log.warning("a cancel record was lost, the request runs to its end: %s", error)

        task = asyncio.create_task(write_cancel())
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)


STATE = web.AppKey("state", GatewayState)


def naming_headers(client_request: str, request: str) -> dict[str, str]:
    """The headers that name a request; ``request`` may not be known."""
    known = {CLIENT_REQUEST_HEADER: client_request, STOCK_HEADER: request or client_request}
    return {**known, REQUEST_HEADER: request} if request else known


def mint_client_request(caller: ApiCaller) -> str:
    """A client request id under the principal's name, which is what lets only that principal ask for it later."""
    return f"{caller.principal.id}:{uuid.uuid4().hex}"


def _certificate(settings: GatewaySettings, metrics: Metrics) -> ServedCertificate | None:
    """The certificate to serve under, where there is one. Raises ConfigError."""
    if not settings.certificate_file:
        return None
    key = Path(settings.key_file) if settings.key_file else None

    def count(result: str) -> None:
        metrics.count("sluice_gateway_certificate_rereads_total", result)

    return ServedCertificate(Path(settings.certificate_file), key, count)
