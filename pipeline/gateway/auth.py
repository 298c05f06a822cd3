"""The bearer key is checked against ``control``. The same secret then signs the record, and admit checks it again."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from typing import NamedTuple

from pipeline.events.control import Control, Plan, Principal, Tenant
from pipeline.events.identity import identify
from pipeline.gateway.refusals import because
from pipeline.keys.vault import Vault

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
    expected = vault.key_secret(key) if document else _NO_SECRET
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
