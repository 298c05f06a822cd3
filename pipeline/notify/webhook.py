"""Signed webhooks over HTTPS: Standard Webhooks 1.0.0 headers, and no way into the network that we run in.

A target is chosen by a tenant, so it is hostile until proven otherwise: the name is resolved for each attempt, every
address it has must be public, and the connection goes to the address that was checked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipeline.notify.outbox import WebhookReply

MAX_BODY_BYTES = 20_000
"""Standard Webhooks advises receivers to expect no more."""
PORTS = frozenset({443, 8443})
_CONNECT_S = 5.0
_NAT64 = ipaddress.ip_network("64:ff9b::/32")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TargetRefused(Exception):
    """The target is none that we send to; the message says why and names no part of the URL."""


def is_public(address: _Address) -> bool:
    """True for a global unicast address that carries no other address inside (RFC 6890; RFC 6052, 3056, 4380)."""
    if isinstance(address, ipaddress.IPv6Address):
        wraps = address.ipv4_mapped or address.sixtofour or address.teredo or address in _NAT64
        if wraps or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check(url: str, allow_private: bool) -> URL:
    """The parsed target. Raises Refused. ``allow_private`` (development, or receivers inside a trusted network)
    also takes plain HTTP, any port, and any address."""
    try:
        parsed = URL(url)
        port = parsed.port
    except (ValueError, TypeError):
        raise TargetRefused("the webhook is not a URL; expected https://host/path") from None
    if parsed.scheme not in (("https", "http") if allow_private else ("https",)) or not parsed.host:
        raise TargetRefused("the webhook must begin with https:// and name a host")
    if parsed.user or parsed.password:
        raise TargetRefused("the webhook must hold no user or password; the signature is the proof of origin")
    if allow_private:
        return parsed
    if port not in PORTS:
        raise TargetRefused(f"the webhook must use port {' or '.join(map(str, sorted(PORTS)))}")
    # aiohttp resolves names only: an address written out never reaches the resolver below
    try:
        literal = ipaddress.ip_address(parsed.host)
    except ValueError:
        return parsed
    if not is_public(literal):
        raise TargetRefused("the webhook's address is not public; set notify.allow_private to send there")
    return parsed


class PublicResolver(AbstractResolver):
    """Resolves by the operating system and refuses a name that has any address that is not public."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        if not found or not all(is_public(ipaddress.ip_address(str(entry[4][0]).split("%")[0])) for entry in found):
            raise TargetRefused("the webhook's name leads to an address that is not public")
        return [
            ResolveResult(
                hostname=host, host=str(entry[4][0]), port=port, family=entry[0], proto=entry[2], flags=_NUMERIC
            )
            for entry in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def headers(secrets: Sequence[bytes], alert: str, seconds: int, body: bytes) -> dict[str, str]:
    """Standard Webhooks headers; ``seconds`` is the Unix time of the attempt, ``alert`` the id of every repeat.

    One signature for each secret, with spaces between: a receiver takes the delivery where any of them is its own.
    """
    signed = f"{alert}.{seconds}.".encode() + body
    digests = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": "sluice-notify/1",
        "webhook-id": alert,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
    }


class WebhookSender:
    """Makes attempts. One session for all targets, but no connection, cookie or name is kept between attempts."""

    def __init__(self, allow_private: bool = False, timeout_s: float = 15.0) -> None:
        self._allow_private = allow_private
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(_CONNECT_S, timeout_s))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WebhookSender:
        resolver: dict[str, Any] = {} if self._allow_private else {"resolver": PublicResolver()}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(use_dns_cache=False, force_close=True, limit=64, **resolver),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._timeout,
            trust_env=False,
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, secrets: Sequence[bytes], alert: str, seconds: int, body: bytes) -> WebhookReply:
        """One attempt. Never raises for what the target does; the response's body is not read."""
        assert self._session is not None, "use it as a context: async with Courier() as courier"
        if len(body) > MAX_BODY_BYTES:
            return WebhookReply(0, fault=f"the payload of {len(body)} bytes is above {MAX_BODY_BYTES}")
        try:
            target = check(url, self._allow_private)
            sent = self._session.post(
                target, data=body, headers=headers(secrets, alert, seconds, body), allow_redirects=False
            )
            async with sent as response:
                return WebhookReply(response.status, _retry_after_ms(response.headers.get("retry-after", "")))
        except TargetRefused as error:
            return WebhookReply(0, fault=str(error))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # the texts of these errors quote the URL
            return WebhookReply(0, fault=type(error).__name__)


def _retry_after_ms(value: str) -> int:
    return int(value) * 1000 if value.isascii() and value.isdigit() and len(value) <= 6 else 0
