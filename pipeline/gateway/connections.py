"""Connections to the HTTP port: their number, their idle time, and the answer to bytes that are no HTTP.

The library's own answer to such bytes quotes them, to the peer and with a traceback to the log. They may be a key with
a header gone wrong, or the rest of a prompt behind a Content-Length that was too short.
"""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError, LineTooLong

from pipeline.gateway.open_connections import OpenConnections, address_of
from pipeline.gateway.refusals import Refusal, because

log = logging.getLogger(__name__)
IDLE_S = 75.0
"""Time until a connection's next request must have come with all its headers; a proxy should give up sooner."""
UNREAD_MS = 60_000
"""Time for which a peer may leave unread what it was sent; the kernel then ends the connection, on Linux."""
SERVER = "sluice"
_SPARE_FILES = 256
"""Descriptors left to the broker's connections and to the process itself."""
_REASON = re.compile(r"([A-Z][A-Za-z' -]{3,60}):\n")
"""The parser's reason, which stands before the bytes that it quotes on a line of their own."""
CountRefusal = Callable[[str], None]


def refusal_response(refusal: Refusal, headers: Mapping[str, str] | None = None) -> web.Response:
    """The response of a refusal."""
    named = {**(headers or {}), **refusal.headers, "Server": SERVER}
    return web.Response(body=refusal.body(), status=refusal.status, content_type="application/json", headers=named)


def malformed_http(error: BaseException | None, message: str | None) -> Refusal:
    """The refusal of bytes that could not be read as a request; it quotes none of them."""
    if isinstance(error, LineTooLong) or (message or "").startswith("Too many headers"):
        text = "The request line or the headers are too long: expected 128 headers of 8,190 bytes at most. Send fewer."
        return Refusal("headers_too_large", text, status=431)
    if isinstance(error, ContentEncodingError):
        return invalid_encoding()
    if (message or "").startswith("Received HTTPS"):
        text = "TLS came to a port that speaks plain HTTP. Use http://, or a proxy in front that ends TLS."
        return Refusal("malformed_http", text)
    reason = _REASON.match(message or "")
    why = f" ({reason.group(1)})" if reason else ""
    text = f"This is no HTTP/1.1 request{why}: expected a request line, headers and a body of the length they tell."
    return Refusal("malformed_http", f"{text} Look at the client, and at any proxy before this server.")


def invalid_encoding() -> Refusal:
    """The refusal of a body that is not encoded as it says, or as nothing here reads."""
    text = "Content-Encoding: expected none, gzip or deflate, and a body that is encoded so. Send plain JSON."
    return Refusal("invalid_encoding", text, status=415, param="Content-Encoding")


def log_unexpected(error: BaseException) -> None:
    """Log type and place of an unexpected error; its text may quote its input."""
    log.error("unexpected %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)[-3:]))


class Connection(web.RequestHandler):
    """One connection; ``count_refusal`` gets the reason of what never became a request."""

    __slots__ = ("_connections", "_count_refusal", "_idle_s", "address")

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        connections: OpenConnections,
        count_refusal: CountRefusal,
        idle_s: float = IDLE_S,
    ) -> None:
        super().__init__(server, loop=loop, access_log=None, keepalive_timeout=idle_s)  # type: ignore[arg-type]
        self._connections = connections
        self._count_refusal = count_refusal
        self._idle_s = idle_s
        self.address = "-"

    @property
    def idle_since(self) -> float | None:
        """When it began to wait for a request, in the loop's time; None while it has one."""
        if self._request_in_progress or self._messages:
            return None
        # the library sets this when a connection is made, and again behind each answer
        return self._next_keepalive_close_time - self._idle_s

    def reap(self) -> None:
        """Close it, as others need its place."""
        self.force_close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        self.address = address_of((transport.get_extra_info("peername") or ("",))[0])
        if not self._connections.add(self):
            self._count_refusal("busy")
            body = because("busy", retry_after_ms=1000).body()
            head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            cast("asyncio.Transport", transport).write(head.encode() + body)
            self._connections.remove(self)
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status == 400:
            refusal = malformed_http(exc, message)
            self._count_refusal(refusal.code)
        else:
            if exc is not None and not isinstance(exc, ConnectionError):
                log_unexpected(exc)
            refusal = Refusal("internal", "The gateway failed on this request.", status=status, kind="api_error")
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; another cannot follow")
        response = refusal_response(refusal)
        response.force_close()
        return response

    def log_exception(self, *_: object, exc_info: object = None, **__: object) -> None:
        """Log faults of ours; a body that breaks off or lies about its encoding was answered."""
        faults = (HttpProcessingError, web.RequestPayloadError, ConnectionError)
        if isinstance(exc_info, BaseException) and not isinstance(exc_info, faults):
            log_unexpected(exc_info)


def connection_limit(wanted: int) -> int:
    """Connections that this process can hold, once its limit of open files is raised as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - _SPARE_FILES))
