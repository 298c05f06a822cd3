"""A producer of inference requests: seals, signs and writes records itself, and asks the gateway for the outcome."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint, KafkaSecurity
from pipeline.errors import ConfigError, Malformed, Retryable
from pipeline.events import wire
from pipeline.events.wire import CancelBody, InferenceBody
from pipeline.kafka.clients import make_producer
from pipeline.kafka.security import require_login
from pipeline.keys import encryption
from pipeline.keys.api_key import kafka_password, parse_key
from pipeline.producer.authorities import authorities
from pipeline.producer.outcomes import NoAnswer, NotConfirmed, Refused, Result, Wire
from pipeline.producer.redaction import UNCHANGED, Left, Redact, checked, taken_out
from pipeline.topics import partition_of

_ASK_MS = 20_000
_WRITE_S = 30
_NOT_OPEN = "expected an open producer, got one that is not open; use it in a with block (async with), or start it"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A written request."""

    producer: Producer
    client_request: str
    request: str
    seconds: float
    left: Left = UNCHANGED
    """The report of what was taken out of the messages before they were sealed."""

    async def result(self, seconds: float | None = None) -> Result:
        """The answer, waited for until the request's deadline or for ``seconds``. Raises Refused or NoAnswer."""
        return await self.producer.answer(self.client_request, self.seconds if seconds is None else seconds)

    async def cancel(self) -> None:
        """Ask for an early end; ``result`` then raises Refused with code cancelled. Raises NotConfirmed."""
        await self.producer.write("cancel", self.producer.mint(), msgspec.json.encode(CancelBody(self.client_request)))


class Producer:
    """Use as an async context manager. One content key and one session of counters per start."""

    def __init__(
        self,
        gateway_url: str,
        api_key: str,
        bootstrap: str | None = None,
        kafka_options: Mapping[str, Any] | None = None,
        redact: Redact = False,
        ca_file: str = "",
    ) -> None:
        """``bootstrap`` overrides what the gateway tells; ``kafka_options`` are aiokafka's, and with security_protocol
        among them they alone say who asks. ``ca_file``: PEM of authorities that may name gateway and brokers (TLS),
        beside those of the system.

        ``redact`` takes personal data out of messages before they are sealed: True redacts all of it, ``Actions`` says
        what happens by type. Raises ConfigError where the actions lack a key or are unknown."""
        self._url = gateway_url.rstrip("/")
        self._api_key = api_key
        self._bootstrap = bootstrap
        self._options = dict(kafka_options or {})
        self._redact = checked(redact)
        self._ca_file = ca_file
        self._key, self._secret = parse_key(api_key)
        self._session = uuid.uuid4().hex
        self._counter = 0
        self._order = asyncio.Lock()
        self._content_key = os.urandom(32)
        self._http: aiohttp.ClientSession | None = None
        self._closed = False
        self._kafka: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Producer:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, fault: object, trace: TracebackType | None) -> None:
        await self.close()

    async def start(self) -> None:
        """Ask the gateway where and how to write, and connect. Raises Refused, Retryable."""
        self._closed = False
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._api_key}"},
            connector=aiohttp.TCPConnector(ssl=authorities(self._ca_file)) if self._ca_file else None,
        )
        try:
            self.wire = msgspec.convert(await self._get("/v1/wire", {}), Wire)
            # records are signed with the gateway's time, so a wrong local clock does not lock the caller out
            self._ahead_ms = now_ms() - self.wire.time
            self._wrap = encryption.wrap_content_key(base64.b64decode(self.wire.hpke_public), self._content_key)
            await self._connect()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._closed = True
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            with contextlib.suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(kafka.stop(), _WRITE_S)
        if self._http is not None:
            await self._http.close()

    async def submit(
        self,
        messages: str | Sequence[Mapping[str, str]],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        **options: Any,
    ) -> Ticket:
        """Write one request. ``messages`` is a prompt or a list of {role, content}; ``options`` are the other fields of
        InferenceBody. Raises Malformed where a field does not fit, NotConfirmed where the write is unknown."""
        self._require_open()
        client_request = self.mint()
        turns, left = taken_out(_written(messages), self._redact)
        text = _encoded(turns)
        wire.decode_messages(text)
        bound = encryption.associated_data(
            self.wire.generation, self.wire.tenant, "request", "messages", client_request
        )
        sealed = encryption.encrypt_text(self._content_key, bound, text, os.urandom)
        chosen = {
            "model": next(iter(self.wire.models), "") if model is None else model,
            "max_tokens": self.wire.max_tokens if max_tokens is None else max_tokens,
        }
        value = msgspec.json.encode(_body({**options, **chosen, "sealed": sealed}))
        if len(value) > self.wire.max_value_bytes:
            raise Malformed(
                f"request: expected at most {self.wire.max_value_bytes} bytes, got {len(value)}; send less text"
            )
        offset, partition = await self.write("inference", client_request, value)
        seconds = options.get("timeout_ms", 60_000) / 1000 + 10
        return Ticket(self, client_request, f"{self.wire.generation}-{partition}-{offset}", seconds, left)

    async def write(self, kind: str, client_request: str, value: bytes) -> tuple[int, int]:
        """Sign and write one record; gives (offset, partition). Raises NotConfirmed."""
        organisation = self.wire.organisation.encode()
        partition = partition_of(organisation, self.wire.partitions)
        wrap = self._wrap if kind == "inference" else b""
        kafka = self._kafka
        try:
            async with asyncio.timeout(_WRITE_S):
                # counters must reach the log about in order, so count, sign and enqueue are one step
                async with self._order:
                    kafka = self._kafka or await self._connect()
                    headers = self._signed(kind, client_request, value, wrap)
                    sent = await kafka.send(
                        self.wire.topic, value=value, key=organisation, partition=partition, headers=headers
                    )
                return (await asyncio.shield(sent)).offset, partition
        except (KafkaError, TimeoutError) as error:
            if kafka is self._kafka:
                self._kafka = None
            if kafka is not None:
                with contextlib.suppress(KafkaError, TimeoutError):
                    await asyncio.wait_for(kafka.stop(), 5)
            raise NotConfirmed(
                f"{kind} {client_request}: expected the broker to confirm the write, got {type(error).__name__}; "
                "submit it again with the same idempotency"
            ) from error

    async def answer(self, client_request: str, seconds: float) -> Result:
        """The answer to one of this principal's requests, by either of its ids. Raises Refused or NoAnswer."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            wait = {"wait_ms": str(max(1, min(_ASK_MS, int(left * 1000))))}
            result = msgspec.convert(await self._get(f"/v1/requests/{client_request}", wait), Result)
            if result.result != "open":
                return result
        raise NoAnswer(
            f"{client_request}: expected an outcome, got none within {seconds:.0f} s; ask for its result again"
        )

    def _require_open(self) -> None:
        if self._closed or "wire" not in vars(self):
            raise ConfigError(_NOT_OPEN)

    def mint(self) -> str:
        """A client request id that only this principal may ask for."""
        return f"{self.wire.client_request_prefix}{uuid.uuid4().hex}"

    def _signed(self, kind: str, client_request: str, value: bytes, wrap: bytes) -> list[tuple[str, bytes]]:
        self._counter += 1
        now = now_ms() - self._ahead_ms
        args = (self._secret, self._key, client_request, kind, value)
        return wire.sign(*args, time=now, session=self._session, counter=self._counter, lane=-1, wrap=wrap)

    async def _connect(self) -> AIOKafkaProducer:
        endpoint = KafkaEndpoint(self._bootstrap or self.wire.bootstrap, self._security())
        servers = endpoint.bootstrap
        kafka = make_producer(endpoint, **{"linger_ms": 2, **self._options})
        try:
            await kafka.start()
        except KafkaError as error:
            await kafka.stop()
            await require_login(endpoint)
            raise Retryable(
                f"no broker at {servers}: expected an answer, got {type(error).__name__}; start it, or give bootstrap"
            ) from error
        self._kafka = kafka
        return kafka

    def _security(self) -> KafkaSecurity:
        """Give what the brokers are told of who asks. Raises ConfigError where the key alone does not let in."""
        told = self.wire
        if "security_protocol" in self._options:
            return KafkaSecurity()
        if not told.security_protocol.startswith("SASL"):
            return KafkaSecurity(told.security_protocol, ca_file=self._ca_file)
        if not told.kafka_user:
            raise ConfigError(
                f"key {self._key}: expected one with a user at the brokers, got one for the gateway alone; ask your "
                "operator for: sluice key add TENANT PRINCIPAL --kafka"
            )
        if told.kafka_user != self._key:
            raise ConfigError(
                f"key {self._key}: the brokers know its bearer as {told.kafka_user!r}; give that user's proof in "
                "kafka_options, security_protocol among it"
            )
        password = kafka_password(self._secret)
        return KafkaSecurity(
            told.security_protocol, told.sasl_mechanism, told.kafka_user, password, ca_file=self._ca_file
        )

    async def _get(self, path: str, query: Mapping[str, str]) -> Any:
        if self._http is None or self._http.closed:
            raise ConfigError(_NOT_OPEN)
        try:
            async with self._http.get(self._url + path, params=query) as answer:
                raw, status, headers = await answer.read(), answer.status, answer.headers
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise ConfigError(
                f"gateway_url: expected http(s)://host:port, got {self._url[:80]!r}; give that of the gateway"
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Retryable(
                f"gateway {self._url}: expected an answer, got {type(error).__name__}; is it running there?"
            ) from error
        try:
            document = msgspec.json.decode(raw)
            if status < 400:
                return document
            said, wait = document["error"], float(headers.get("Retry-After", 0))
            raise Refused(status, said["code"], said["message"], wait, said.get("first_request", ""))
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            raise Retryable(
                f"gateway {self._url}: expected a JSON answer, got status {status} without one; is the URL right?"
            ) from None


def _written(messages: Any) -> list[Mapping[str, str]]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Sequence) and all(isinstance(turn, Mapping) for turn in messages):
        return list(messages)
    raise Malformed(
        f"messages: expected a prompt, or a list of {{role, content}}, got {type(messages).__name__}; give one of them"
    )


def _encoded(turns: Any) -> bytes:
    try:
        return msgspec.json.encode(turns)
    except (UnicodeEncodeError, TypeError, ValueError):
        # the error's own text may quote the message
        raise Malformed("messages: expected text that UTF-8 can hold, without lone surrogates; clean it") from None


def _body(fields: Mapping[str, Any]) -> InferenceBody:
    try:
        return msgspec.convert(fields, InferenceBody)
    except msgspec.ValidationError as error:
        raise Malformed(f"request: {error}; its fields are in WIRE.md beside the producer") from None
