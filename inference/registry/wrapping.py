"""The data key of a version, wrapped once for each recipient that may open it.

A tenant's wrap is made by the key management service under that tenant's context; a worker's by HPKE (RFC 9180) with
the hybrid KEM ML-KEM-768 + X25519, so recorded traffic stays closed also to a later quantum computer.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from inference.registry.keys import MAX_PEM_BYTES, write_private
from inference.registry.refusal import ModelRefused
from inference.registry.stream_cipher import KEY_BYTES

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_BLOCK = re.compile(r"-----BEGIN (?:PUBLIC|PRIVATE) KEY-----\n.*?-----END (?:PUBLIC|PRIVATE) KEY-----\n?", re.DOTALL)


class KeyService(Protocol):
    """A key management service: wraps small secrets under a key that never leaves it; ``context`` must match."""

    def wrap(self, secret: bytes, context: str) -> str: ...
    def unwrap(self, wrapped: str, context: str) -> bytes: ...


class Recipient(Protocol):
    """A party that a data key can be wrapped for."""

    @property
    def name(self) -> str: ...
    def wrap(self, key: bytes, context: str) -> str: ...


class Holder(Protocol):
    """A party that can unwrap a key wrapped for ``name``. Raises ModelRefused."""

    @property
    def name(self) -> str: ...
    def unwrap(self, wrapped: str, context: str) -> bytes: ...


class TenantRecipient:
    """A tenant (or, with no name, the registry's own operator) whose key the service holds."""

    def __init__(self, kms: KeyService, tenant: str = "") -> None:
        self.name = f"tenant/{tenant}" if tenant else "operator"
        self._kms = kms

    def wrap(self, key: bytes, context: str) -> str:
        return self._kms.wrap(key, f"{context}/{self.name}")

    def unwrap(self, wrapped: str, context: str) -> bytes:
        return self._kms.unwrap(wrapped, f"{context}/{self.name}")


class WorkerAddress:
    """A worker's public key, from a PEM file of its two halves."""

    def __init__(self, kem: MLKEM768PublicKey, curve: X25519PublicKey) -> None:
        self._key = MLKEM768X25519PublicKey(kem, curve)
        encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        both = kem.public_bytes(encoding, form) + curve.public_bytes(encoding, form)
        self.name = f"worker/{hashlib.sha256(both).hexdigest()[:32]}"

    @classmethod
    def read(cls, path: Path) -> WorkerAddress:
        """Raises ModelRefused."""
        halves = _halves(path)
        kem = next((key for key in halves if isinstance(key, MLKEM768PublicKey)), None)
        curve = next((key for key in halves if isinstance(key, X25519PublicKey)), None)
        if kem is None or curve is None:
            raise ModelRefused(
                "key", f"{path}: expected PUBLIC KEY blocks of ML-KEM-768 and X25519: sluice model keygen"
            )
        return cls(kem, curve)

    def wrap(self, key: bytes, context: str) -> str:
        ciphertext = _SUITE.encrypt(key, self._key, f"{context}/{self.name}".encode())
        return base64.b64encode(ciphertext).decode("ascii")


class Worker:
    """A worker's private key."""

    def __init__(self, kem: MLKEM768PrivateKey, curve: X25519PrivateKey) -> None:
        self._halves = (kem, curve)
        self._key = MLKEM768X25519PrivateKey(kem, curve)
        self.address = WorkerAddress(kem.public_key(), curve.public_key())
        self.name = self.address.name

    @classmethod
    def generate(cls) -> Worker:
        """A fresh key from the system's randomness."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> Worker:
        """Raises ModelRefused."""
        halves = _halves(path)
        kem = next((key for key in halves if isinstance(key, MLKEM768PrivateKey)), None)
        curve = next((key for key in halves if isinstance(key, X25519PrivateKey)), None)
        if kem is None or curve is None:
            raise ModelRefused(
                "key", f"{path}: expected PRIVATE KEY blocks of ML-KEM-768 and X25519: sluice model keygen"
            )
        return cls(kem, curve)

    def write(self, path: Path) -> None:
        """The private key at ``path`` (mode 0600), the public one at ``path`` + ``.pub``. Raises ModelRefused."""
        write_private(path, self.pem())
        encoding, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        public = b"".join(half.public_key().public_bytes(encoding, spki) for half in self._halves)
        path.with_name(f"{path.name}.pub").write_bytes(public)

    def pem(self) -> bytes:
        """Both halves as PKCS #8, not encrypted."""
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        return b"".join(half.private_bytes(encoding, form, plain) for half in self._halves)

    def unwrap(self, wrapped: str, context: str) -> bytes:
        try:
            key = _SUITE.decrypt(base64.b64decode(wrapped, validate=True), self._key, f"{context}/{self.name}".encode())
        except (InvalidTag, ValueError, binascii.Error):
            raise ModelRefused("key", f"{self.name}: its wrapped key does not open; export the version again") from None
        return key


def create_worker(path: Path) -> Worker:
    """The worker's key at ``path``, made first where there is none. Raises ModelRefused, OSError."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        write_private(partial, Worker.generate().pem())
        # of two processes that begin together one wins, and neither reads half a key
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    return Worker.read(path)


def unwrap_for(holder: Holder, recipients: dict[str, str], context: str) -> bytes:
    """The data key of a version. Raises ModelRefused where the holder is no recipient."""
    wrapped = recipients.get(holder.name)
    if wrapped is None:
        raise ModelRefused(
            "key", f"{context}: expected a key wrapped for {holder.name}, got none; export or add it for that one"
        )
    key = holder.unwrap(wrapped, context)
    if len(key) != KEY_BYTES:
        raise ModelRefused("key", f"{context}: expected a data key of {KEY_BYTES} bytes, got {len(key)}")
    return key


def _halves(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PEM_BYTES).decode("ascii", "replace").replace("\r\n", "\n")
    except OSError as fault:
        raise ModelRefused("key", f"{path}: expected a PEM file: {fault.strerror}") from None
    keys: list[Any] = []
    for block in _BLOCK.findall(text):
        try:
            if "PRIVATE" in block[:30]:
                keys.append(serialization.load_pem_private_key(block.encode(), None))
            else:
                keys.append(serialization.load_pem_public_key(block.encode()))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ModelRefused("key", f"{path}: a PEM block does not decode; make the keys again") from None
    return keys
