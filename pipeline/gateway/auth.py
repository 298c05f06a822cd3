"""The bearer key is checked against ``control``. The same secret then signs the record, and admit checks it again."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from pipeline.clock import now_ms
from pipeline.events.control import Control, Plan, Principal, Tenant
from pipeline.events.identity import identify
from pipeline.gateway.refusals import Refusal, because
from pipeline.gateway.wrong_keys import Named, WrongKeys, throttled
from pipeline.keys.vault import Vault, WrapAltered

PREFIX = "sk-sluice-"
MAX_BEARER = 256
_NO_SECRET = os.urandom(32)
_HOW = "Send the header Authorization: Bearer sk-sluice-<key id>.<secret>."


class ApiCaller(NamedTuple):
    """A genuine key with everything it stands for."""

    key: str
    secret: bytes
    tenant: Tenant
    principal: Principal
    plan: Plan


def bearer(key: str, secret: bytes) -> str:
    """The API key a caller sends: ``sk-sluice-<key id>.<base64url of the 32-byte secret>``."""
    return f"{PREFIX}{key}.{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"


def parse_bearer(text: str) -> tuple[str, bytes] | None:
    """Key id and secret, or None where the text is no API key."""
    if len(text) > MAX_BEARER or not text.startswith(PREFIX):
        return None
    key, dot, secret = text[len(PREFIX) :].rpartition(".")
    try:
        raw = base64.b64decode(secret + "=" * (-len(secret) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return (key, raw) if dot and key and len(raw) == 32 else None


def bearer_of(header: str | None) -> tuple[str, bytes] | None:
    """Key id and secret out of an Authorization header, or None where it holds no API key."""
    scheme, _, text = (header or "").partition(" ")
    return parse_bearer(text.strip()) if scheme.lower() == "bearer" else None


def authenticate(control: Control, vault: Vault, header: str | None, now: int) -> ApiCaller:
    """The caller behind an Authorization header at ``now`` (Unix ms). Raises Refusal.

    An unknown key and a wrong secret take the same path and give the same answer.
    """
    parsed = bearer_of(header)
    if parsed is None:
        raise because("unknown_key", message=_HOW)
    key, given = parsed
    document = control.keys.get(key)
    expected = _NO_SECRET
    if document:
        # a document that bears another key's secret is no key
        with contextlib.suppress(WrapAltered):
            expected = vault.key_secret(key)
    genuine = hmac.compare_digest(given, expected)
    identity = identify(control, key)
    if not genuine or document is None or identity is None:
        raise because("unknown_key")
    if document.status == "revoked":
        raise because("revoked_key")
    if document.expires and document.expires <= now:
        raise because("expired_key")
    if identity.tenant.status == "suspended":
        raise because("suspended")
    return ApiCaller(key, expected, identity.tenant, identity.principal, identity.plan)


class Authenticator:
    """Finds the caller behind a header; wrong keys are counted by address.

    ``caught_up`` reads ``control`` to its end, False where it could not.
    """

    def __init__(
        self, control: Control, vault: Vault, caught_up: Callable[[], Awaitable[bool]], wrong_keys: WrongKeys
    ) -> None:
        self._control = control
        self._vault = vault
        self._caught_up = caught_up
        self._wrong_keys = wrong_keys

    async def caller(self, header: str | None, address: str) -> ApiCaller:
        """The caller that sends this Authorization header from this address. Raises Refusal.

        No key is called unknown before control was read up to now, so it works from the moment that it is made; for
        an address with too many wrong keys that is not done.
        """
        try:
            return authenticate(self._control, self._vault, header, now_ms())
        except Refusal as refusal:
            if refusal.code != "unknown_key" or header is None:
                raise
            first = refusal
        now, parsed = time.monotonic(), bearer_of(header)
        wait_s = self._wrong_keys.wait_s(address, now)
        try:
            if parsed is None or wait_s:
                raise first
            if not await self._caught_up():
                raise because("busy", retry_after_ms=1000)
            return authenticate(self._control, self._vault, header, now_ms())
        except Refusal as refusal:
            if refusal.code != "unknown_key":
                raise
            self._wrong_keys.add(address, now, self._named(parsed))
            raise throttled(wait_s) if wait_s else refusal from None

    def _named(self, parsed: tuple[str, bytes] | None) -> Named:
        identity = identify(self._control, parsed[0]) if parsed else None
        return Named(identity.tenant.organisation, identity.tenant.id, identity.principal.id) if identity else Named()
