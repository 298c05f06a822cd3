"""A key management service behind one interface: the file keyring, and what a tenant's own worker has in its place.

The file keyring is the development and single-node form. Lose it and no text opens again; leak it and all do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pipeline.errors import ConfigError
from pipeline.events.wrapped import secret_id
from pipeline.keys.encryption import fingerprint
from pipeline.keys.files import create_once, file_state, replace_file


class Kms(Protocol):
    """Wraps small secrets under a key that never leaves it. ``context`` is bound in and must match."""

    def wrap(self, secret: bytes, context: str) -> str: ...
    def unwrap(self, wrapped: str, context: str) -> bytes: ...
    def derive(self, context: str) -> tuple[bytes, ...]:
        """Give a secret for a purpose of its own from each key, the current one's first."""
        ...


class WrapAltered(ConfigError):
    """A wrapped secret does not open: it was altered, or belongs to another key, principal or tenant."""


class NotGranted(ConfigError):
    """A tenant's own worker was not given a secret, or not yet."""


def wrap_named(kms: Kms, secret: bytes, context: str) -> str:
    """Wrap a secret with its id behind it, so that documents tell which one it is without opening it."""
    return f"{kms.wrap(secret, context)}#{fingerprint(secret)}"


class FileKeyring:
    """AES-256-GCM under a key encryption key in a file of mode 0600, which is read again once it has changed."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ConfigError(
                f"keyring {path} does not exist; run: sluice topics apply (a new deployment; sluice up does it by "
                "itself), restore it, or set keys.home"
            )
        self._path = path
        self._read()

    @classmethod
    def create(cls, path: Path) -> FileKeyring:
        """The keyring at ``path``, made first where there is none."""
        text = json.dumps({"current": "k1", "keys": {"k1": base64.b64encode(os.urandom(32)).decode()}})
        create_once(path, text)
        return cls(path)

    @property
    def current(self) -> str:
        """Name the key that wraps."""
        return self._current

    @property
    def following(self) -> str:
        """Name the key that is there to wrap next, empty for none."""
        return self._following

    @property
    def names(self) -> tuple[str, ...]:
        """Name all keys, in the order in which they were made."""
        return tuple(self._keys)

    def wrap(self, secret: bytes, context: str) -> str:
        nonce = os.urandom(12)
        body = AESGCM(self._keys[self._current]).encrypt(nonce, secret, context.encode())
        return f"{self._current}:{base64.b64encode(nonce + body).decode()}"

    def unwrap(self, wrapped: str, context: str) -> bytes:
        """Open a wrapped secret. Raises WrapAltered where it is not this context's, ConfigError without its key."""
        name, _, body = wrapped.partition("#")[0].partition(":")
        key = self._keys.get(name)
        if key is None and self._changed():
            # another process has added the key since: it stood in the file before anything was wrapped with it
            self._read()
            key = self._keys.get(name)
        if key is None:
            raise ConfigError(f"keyring has no key {name!r}: this keyring is not the one that wrapped {context}")
        raw = base64.b64decode(body)
        try:
            return AESGCM(key).decrypt(raw[:12], raw[12:], context.encode())
        except InvalidTag:
            raise WrapAltered(f"keyring key {name!r} does not open {context}: other keyring or altered bytes") from None

    def derive(self, context: str) -> tuple[bytes, ...]:
        """Give 32 bytes from each key by HKDF-SHA256 (RFC 5869), the current one's first."""
        if self._changed():
            self._read()
        names = sorted(self._keys, key=lambda name: (name != self._current, name))
        return tuple(HKDF(SHA256(), 32, None, context.encode()).derive(self._keys[name]) for name in names)

    def _changed(self) -> bool:
        with contextlib.suppress(OSError):
            return file_state(self._path) != self._state
        return False

    def _read(self) -> None:
        try:
            state, document = file_state(self._path), json.loads(self._path.read_text())
            keys = {str(name): base64.b64decode(key) for name, key in document["keys"].items()}
            current, following = str(document["current"]), str(document.get("next", ""))
            keys[current]
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"keyring {self._path}: expected current and keys as written by sluice ({type(error).__name__}); "
                "restore it"
            ) from None
        self._state, self._keys = state, keys
        self._current, self._following = current, following


class GrantedKeys:
    """The few secrets that one tenant's own worker needs, in a file that holds no others and no key to any other.

    A secret is found by its id, however it was wrapped since; one that was wrapped before secrets had ids by its
    wrapping. The file is read again once it was renewed. What it cannot do: wrap, or open what it was not given.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    @staticmethod
    def write(path: Path, kms: Kms, wrapped: Mapping[str, str | tuple[str, ...]]) -> None:
        """Open each of ``wrapped`` (context to wrapped secrets) and write them where the worker's group may read."""
        opened: dict[str, str] = {}
        for name, texts in wrapped.items():
            for text in (texts,) if isinstance(texts, str) else texts:
                opened[_grant(text, name)] = base64.b64encode(kms.unwrap(text, name)).decode()
        # a worker that runs reads the one or the other, never none
        replace_file(path, json.dumps({"granted": opened}), 0o640)

    def wrap(self, secret: bytes, context: str) -> str:
        raise ConfigError(f"a worker of one tenant wraps no secrets, got {context}")

    def unwrap(self, wrapped: str, context: str) -> bytes:
        secret = self._find(wrapped, context)
        if secret is None and file_state(self._path) != self._state:
            self._read()
            secret = self._find(wrapped, context)
        if secret is None:
            raise NotGranted(f"this worker was not granted {context}, or it changed since: sluice deploy grant")
        return secret

    def derive(self, context: str) -> tuple[bytes, ...]:
        raise ConfigError(f"a worker of one tenant derives no secrets, got {context}")

    def _find(self, wrapped: str, context: str) -> bytes | None:
        by_id = self._by_id.get((context, secret_id(wrapped)))
        return by_id if by_id is not None else self._secrets.get(_grant(wrapped, context))

    def _read(self) -> None:
        try:
            self._state = file_state(self._path)
            granted = json.loads(self._path.read_text())["granted"]
            self._secrets = {str(name): base64.b64decode(secret) for name, secret in granted.items()}
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"granted keys {self._path}: expected what sluice deploy grant writes; run it again"
            ) from error
        self._by_id = {(name.rpartition("#")[0], fingerprint(raw)): raw for name, raw in self._secrets.items()}


def open_kms(path: Path) -> FileKeyring | GrantedKeys:
    """The keyring at ``path``, or what a tenant's own worker has in its place. Raises ConfigError."""
    try:
        granted = b'"granted"' in path.read_bytes()
    except OSError:
        granted = False
    return GrantedKeys(path) if granted else FileKeyring(path)


def _grant(wrapped: str, context: str) -> str:
    return f"{context}#{hashlib.sha256(wrapped.encode()).hexdigest()}"
