"""Reads the HTTP request: its body within bounds, its idempotency key, and the go-ahead that ``Expect`` asks for."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web

from pipeline.gateway.connections import invalid_encoding, malformed_http, refusal_response
from pipeline.gateway.open_connections import address_of
from pipeline.gateway.refusals import Refusal, invalid
from pipeline.gateway.state import STATE
from pipeline.gateway.translate import too_large

_READ_S = 30
_ENCODINGS = frozenset({"identity", "gzip", "deflate"})


async def read_body(request: web.Request) -> bytes:
    """The whole body, decompressed. Raises Refusal."""
    limit = request.app[STATE].settings.bounds.body_bytes
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    if request.headers.get("Content-Encoding", "identity").lower() not in _ENCODINGS:
        raise invalid_encoding()
    try:
        async with asyncio.timeout(_READ_S):
            return await request.read()
    except web.RequestPayloadError:
        raise invalid_encoding() if "Content-Encoding" in request.headers else malformed_http(None, None) from None
    except web.HTTPRequestEntityTooLarge:
        raise too_large(limit) from None
    except TimeoutError:
        message = f"The body did not arrive within {_READ_S} s."
        raise Refusal("slow_body", message, status=408, kind="timeout_error") from None


def idempotency_key(request: web.Request) -> str:
    """The ``Idempotency-Key`` header, empty where there is none. Raises Refusal."""
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > 128 or not key.isascii() or not key.isprintable():
        raise invalid("Idempotency-Key", "Idempotency-Key: expected at most 128 printable ASCII characters.")
    return key


async def answer_expect(request: web.Request) -> web.StreamResponse | None:
    """Answer ``Expect: 100-continue``. Nothing is sent where the key is refused, so that no body comes for nothing."""
    if request.version < HttpVersion11:
        return None
    if request.headers.get("Expect", "").lower() != "100-continue":
        refusal = Refusal("expectation_failed", "Expect: expected 100-continue, or no such header.", status=417)
        return refusal_response(refusal)
    try:
        await request.app[STATE].authenticate(request.headers.get("Authorization"), address_of(request.remote))
    except Refusal:
        return None
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return None
