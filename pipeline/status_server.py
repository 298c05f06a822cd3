"""A process answers on a port of its own: ``/livez``, ``/readyz`` and ``/metrics``; ``/healthz`` is as ``/livez``.

HTTP/1.1 with the standard library, one answer for each connection: a stage starts without a web framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import NamedTuple, TypeVar

from pipeline.config import Settings
from pipeline.credentials import credential_faults, credential_readings
from pipeline.errors import ConfigError
from pipeline.process_status import ProcessStatus
from pipeline.sections import Status, read_secret

Told = TypeVar("Told", bound=ProcessStatus)
_HEAD_BYTES = 16_384
_HEAD_S = 5.0


class StatusAnswer(NamedTuple):
    """The answer to one request."""

    status: HTTPStatus
    body: bytes
    kind: str = "application/json"


@contextlib.asynccontextmanager
async def served_status(settings: Settings, status: Told) -> AsyncIterator[Told]:
    """Answer for ``status`` while the context lasts, and listen to the log; port 0 serves nothing.

    It is starting until it says otherwise. Raises ConfigError where the port is taken or the token cannot be read.
    """
    section, status.starting = settings.status, True
    status.checks.append(partial(credential_faults, settings))
    status.add(partial(credential_readings, settings))
    logging.getLogger().addHandler(status.fault_log)
    server = None
    try:
        if section.port:
            server = await _listen(section, status)
        yield status
    finally:
        logging.getLogger().removeHandler(status.fault_log)
        if server is not None:
            server.close()


async def _listen(section: Status, status: ProcessStatus) -> asyncio.Server:
    _token(section)
    try:
        return await asyncio.start_server(
            partial(_converse, section, status), section.host, section.port, limit=_HEAD_BYTES
        )
    except OSError as error:
        raise ConfigError(
            f"status.host, status.port: expected an address to listen on, got {section.host}:{section.port} "
            f"({error.strerror}); stop the program that has it, or set another"
        ) from None


async def _converse(
    section: Status, status: ProcessStatus, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(_HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
            answer = answered(section, status, head)
            writer.write(
                f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.kind}\r\n"
                f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n".encode()
                # a HEAD is told the length of what a GET would bring
                + (b"" if head.startswith(b"HEAD ") else answer.body)
            )
            await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        # a caller that says nothing, too much, or goes away
        pass
    finally:
        writer.close()


def answered(section: Status, status: ProcessStatus, head: bytes) -> StatusAnswer:
    """Give the answer to a request's head."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, target = first.partition(" ")
    path = target.partition(" ")[0].partition("?")[0]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if method not in ("GET", "HEAD"):
        return _document(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "expected GET"})
    trusted = is_trusted(section, fields)
    if path in ("/livez", "/healthz"):
        return _document(HTTPStatus.OK, {"status": "alive"})
    if path == "/readyz":
        return _readiness(status, trusted=trusted)
    if path != "/metrics":
        return _document(HTTPStatus.NOT_FOUND, {"error": "expected /livez, /readyz or /metrics"})
    if not trusted:
        return _document(HTTPStatus.UNAUTHORIZED, {"error": "expected the token of status.token_file as a bearer"})
    return StatusAnswer(HTTPStatus.OK, status.render(), "text/plain; version=0.0.4; charset=utf-8")


def is_trusted(section: Status, fields: Mapping[str, str]) -> bool:
    """Tell whether a caller may see everything: without a token each caller on loopback may."""
    if not section.token_file:
        return True
    kind, _, given = fields.get("authorization", "").partition(" ")
    try:
        wanted = _token(section)
    except ConfigError:
        # it is being replaced
        return False
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), wanted.encode())


def _readiness(status: ProcessStatus, *, trusted: bool) -> StatusAnswer:
    faults, last = status.faults(), status.fault_log.last
    told: dict[str, object] = {"ready": not faults}
    if trusted:
        told["faults"] = faults
        if last is not None:
            told["last_fault"] = {"time": round(last.time, 3), "text": last.text}
    return _document(HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK, told)


def _document(status: HTTPStatus, told: Mapping[str, object]) -> StatusAnswer:
    return StatusAnswer(status, json.dumps(told).encode())


def _token(section: Status) -> str:
    return read_secret("status.token_file", section.token_file, "token") if section.token_file else ""
