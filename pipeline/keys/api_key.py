"""The text of an API key: its id, its secret, and the password that follows from it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac

from pipeline.errors import ConfigError

PREFIX = "sk-sluice-"


def key_text(key: str, secret: bytes) -> str:
    """Give what its bearer keeps."""
    return f"{PREFIX}{key}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"


def key_id(text: str) -> str:
    """Give the id in a key's text; an id alone is one."""
    return text.removeprefix(PREFIX).split(".")[0]


def parse_key(text: str) -> tuple[str, bytes]:
    """Give id and secret. Raises ConfigError, which never quotes the text."""
    key, _, secret = text.removeprefix(PREFIX).rpartition(".")
    with contextlib.suppress(ValueError):
        raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        if text.startswith(PREFIX) and key and len(raw) == 32:
            return key, raw
    raise ConfigError("api_key: expected sk-sluice-<key id>.<base64url of 32 bytes>; ask your operator for one")


def kafka_password(secret: bytes) -> str:
    """Give the password of a key's own user at the brokers, from which the key's secret does not follow."""
    return hmac.new(secret, b"sluice-kafka-password-v1", hashlib.sha256).hexdigest()
