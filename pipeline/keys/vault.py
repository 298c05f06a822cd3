"""Keys and who may open them: a key management service behind one interface, and a bounded cache in front.

The file keyring is the development and single-node form. Lose it and no text opens again; leak it and all do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypedDict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pipeline.errors import ConfigError, Malformed
from pipeline.events.control import Control
from pipeline.events.keyed import hmac_sha256
from pipeline.keys import encryption

_CACHE = 4096


class Kms(Protocol):
    """Wraps small secrets under a key that never leaves it. ``context`` is bound in and must match."""

    def wrap(self, secret: bytes, context: str) -> str: ...
    def unwrap(self, wrapped: str, context: str) -> bytes: ...
    def derive(self, context: str) -> tuple[bytes, ...]:
        """Give a secret for a purpose of its own from each key, the current one's first."""
        ...


class FileKeyring:
    """AES-256-GCM under a key encryption key in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ConfigError(
                f"keyring {path} does not exist; run: sluice topics apply (a new deployment; sluice up does it by "
                "itself), restore it, or set keys.home"
            )
        try:
            document = json.loads(path.read_text())
            self._keys = {str(name): base64.b64decode(key) for name, key in document["keys"].items()}
            self._current = str(document["current"])
            self._keys[self._current]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"keyring {path}: expected current and keys as written by sluice ({type(error).__name__}); restore it"
            ) from None

    @classmethod
    def create(cls, path: Path) -> FileKeyring:
        """The keyring at ``path``, made first where there is none."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = json.dumps({"current": "k1", "keys": {"k1": base64.b64encode(os.urandom(32)).decode()}})
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            _write_once(partial, text, 0o600)
            # of two processes that begin together one wins, and nobody reads half a keyring
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
            partial.unlink()
        return cls(path)

    def wrap(self, secret: bytes, context: str) -> str:
        nonce = os.urandom(12)
        body = AESGCM(self._keys[self._current]).encrypt(nonce, secret, context.encode())
        return f"{self._current}:{base64.b64encode(nonce + body).decode()}"

    def unwrap(self, wrapped: str, context: str) -> bytes:
        name, _, body = wrapped.partition(":")
        key = self._keys.get(name)
        if key is None:
            raise ConfigError(f"keyring has no key {name!r}: this keyring is not the one that wrapped {context}")
        raw = base64.b64decode(body)
        try:
            return AESGCM(key).decrypt(raw[:12], raw[12:], context.encode())
        except InvalidTag:
            raise ConfigError(f"keyring key {name!r} does not open {context}: other keyring or altered bytes") from None

    def derive(self, context: str) -> tuple[bytes, ...]:
        """Give 32 bytes from each key by HKDF-SHA256 (RFC 5869), the current one's first."""
        names = sorted(self._keys, key=lambda name: (name != self._current, name))
        return tuple(HKDF(SHA256(), 32, None, context.encode()).derive(self._keys[name]) for name in names)


class GrantedKeys:
    """The few secrets that one tenant's own worker needs, in a file that holds no others and no key to any other.

    What it cannot do: wrap, or open what was wrapped anew after it was written.
    """

    def __init__(self, path: Path) -> None:
        try:
            granted = json.loads(path.read_text())["granted"]
            self._secrets = {str(name): base64.b64decode(secret) for name, secret in granted.items()}
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"granted keys {path}: expected what sluice deploy grant writes; run it again") from error

    @staticmethod
    def write(path: Path, kms: Kms, wrapped: Mapping[str, str]) -> None:
        """Open each of ``wrapped`` (context to wrapped secret) and write them where the worker's group may read."""
        opened = {
            _grant(text, name): base64.b64encode(kms.unwrap(text, name)).decode() for name, text in wrapped.items()
        }
        path.unlink(missing_ok=True)
        _write_once(path, json.dumps({"granted": opened}), 0o640)

    def wrap(self, secret: bytes, context: str) -> str:
        raise ConfigError(f"a worker of one tenant wraps no secrets, got {context}")

    def unwrap(self, wrapped: str, context: str) -> bytes:
        secret = self._secrets.get(_grant(wrapped, context))
        if secret is None:
            raise ConfigError(f"this worker was not granted {context}, or it changed since: sluice deploy grant")
        return secret

    def derive(self, context: str) -> tuple[bytes, ...]:
        raise ConfigError(f"a worker of one tenant derives no secrets, got {context}")


def open_kms(path: Path) -> FileKeyring | GrantedKeys:
    """The keyring at ``path``, or what a tenant's own worker has in its place. Raises ConfigError."""
    try:
        granted = b'"granted"' in path.read_bytes()
    except OSError:
        granted = False
    return GrantedKeys(path) if granted else FileKeyring(path)


def _grant(wrapped: str, context: str) -> str:
    return f"{context}#{hashlib.sha256(wrapped.encode()).hexdigest()}"


def _write_once(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class Vault:
    """The secrets of tenants and keys, unwrapped on first use and kept by version of their wrapping."""

    def __init__(self, kms: Kms, control: Control, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._kms = kms
        self._control = control
        self._entropy = entropy
        self._unwrapped: OrderedDict[str, bytes] = OrderedDict()
        self._content: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def key_secret(self, key: str) -> bytes:
        """The HMAC secret of an API key that exists in control."""
        return self._open(self._control.keys[key].secret, f"key/{key}")

    def webhook_secret(self, tenant: str) -> bytes:
        return self._open(self._control.tenants[tenant].webhook_secret, f"webhook/{tenant}")

    def ticket_keys(self) -> tuple[bytes, ...]:
        """Give the keys of tickets of this generation, the current one first; admit alone asks for them."""
        return self._kms.derive(f"sluice/ticket/v1/{self._control.generation}")

    def canary(self, tenant: str) -> str:
        """26 letters and digits for the tenant's system prompts and documents, which nothing but a leak can bring out.

        Derived from the data key: the same until that key is replaced. Raises Malformed for no such tenant.
        """
        return base64.b32encode(hmac_sha256(self._data_key(tenant), b"sluice/canary/v1"))[:26].decode().lower()

    def encrypt(self, tenant: str, kind: str, field: str, client_request: str, text: bytes) -> bytes:
        """Seal under the tenant's data key."""
        return encryption.encrypt_text(
            self._data_key(tenant),
            self._bind(tenant, kind, field, client_request),
            text,
            self._entropy,
        )

    def decrypt(
        self,
        tenant: str,
        kind: str,
        field: str,
        client_request: str,
        sealed: bytes,
        wrap: bytes = b"",
        generation: str = "",
    ) -> bytes:
        """Open a text sealed under the data key, or under the content key in ``wrap``. Raises Malformed.

        ``generation``: that of its request, where it is a former one.
        """
        key = self._content_key(tenant, wrap) if wrap else self._data_key(tenant)
        of = generation or self._control.generation
        return encryption.decrypt_text(key, encryption.associated_data(of, tenant, kind, field, client_request), sealed)

    def _bind(self, tenant: str, kind: str, field: str, client_request: str) -> bytes:
        return encryption.associated_data(self._control.generation, tenant, kind, field, client_request)

    def _data_key(self, tenant: str) -> bytes:
        document = self._control.tenants.get(tenant)
        if document is None:
            raise Malformed(f"no tenant {tenant!r} in control")
        return self._open(document.data_key, f"data/{tenant}")

    def _content_key(self, tenant: str, wrap: bytes) -> bytes:
        cached = self._content.get((tenant, wrap))
        if cached is None:
            private = self._open(self._control.tenants[tenant].hpke_private, f"hpke/{tenant}")
            cached = self._content[(tenant, wrap)] = encryption.unwrap_content_key(private, wrap)
            if len(self._content) > _CACHE:
                self._content.popitem(last=False)
        return cached

    def _open(self, wrapped: str, context: str) -> bytes:
        cached = self._unwrapped.get(wrapped)
        if cached is None:
            cached = self._unwrapped[wrapped] = self._kms.unwrap(wrapped, context)
            if len(self._unwrapped) > _CACHE:
                self._unwrapped.popitem(last=False)
        return cached


class TenantKeys(TypedDict):
    """Wrapped keys of a tenant document."""

    data_key: str
    hpke_public: str
    hpke_private: str
    webhook_secret: str


def tenant_keys(kms: Kms, tenant: str) -> TenantKeys:
    """Make fresh wrapped keys for a tenant document."""
    private = X25519PrivateKey.generate()
    return {
        "data_key": kms.wrap(os.urandom(32), f"data/{tenant}"),
        "hpke_public": base64.b64encode(private.public_key().public_bytes_raw()).decode(),
        "hpke_private": kms.wrap(private.private_bytes_raw(), f"hpke/{tenant}"),
        "webhook_secret": kms.wrap(os.urandom(32), f"webhook/{tenant}"),
    }


def secret_text(secret: bytes) -> str:
    """Write a webhook's secret as its receiver is told it: ``whsec_`` and base64."""
    return "whsec_" + base64.b64encode(secret).decode()
