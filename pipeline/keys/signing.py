"""Signing keys of roots and operators: one Ed25519 key a file (PEM, PKCS #8), mode 0600, named by whose it is.

A root's key is needed for deployment documents alone: keep it offline, and bring it for as long as one is signed.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pipeline.errors import ConfigError
from pipeline.events.signed_document import key_id
from pipeline.keys.files import create_once


class PrivateSigner:
    """A private key of a root or an operator."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self._private = private
        raw = private.public_key().public_bytes_raw()
        self.public = base64.b64encode(raw).decode()
        self.key = key_id(raw)

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    @property
    def public_pem(self) -> str:
        """Write the public half as ``operator add --public`` reads it."""
        public = self._private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load_signer(path: Path) -> PrivateSigner:
    """Read the key in a file, named by it. Raises ConfigError."""
    try:
        private = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise ConfigError(
            f"signing key {path} does not exist; give another with --by, restore it, or make one: sluice operator add"
        ) from None
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"signing key {path}: expected a private key in PEM ({type(error).__name__})") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"signing key {path}: expected an Ed25519 key, got another kind")
    return PrivateSigner(path.stem, private)


def create_signer(path: Path) -> PrivateSigner:
    """Read the key in a file, made first where there is none."""
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    create_once(path, text)
    return load_signer(path)


def load_signers(folder: Path) -> list[PrivateSigner]:
    """Read every key of a folder, by name; none where the folder is absent."""
    return [load_signer(path) for path in sorted(folder.glob("*.pem"))]


def read_public(path: Path) -> str:
    """Read a public key in PEM; gives it as deployment documents hold it. Raises ConfigError."""
    try:
        public = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: expected a public key in PEM ({type(error).__name__})") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(f"{path}: expected an Ed25519 key, got another kind; make one with: sluice operator add")
    return base64.b64encode(public.public_bytes_raw()).decode()


class SigningKeys:
    """The signing keys of an operator's machine, read from their files when one is first needed."""

    def __init__(self, operators: Path, roots: Path, name: str) -> None:
        self._operators = operators
        self._roots = roots
        self._name = name

    def operator(self) -> PrivateSigner:
        """Give the key that signs what commands write. Raises ConfigError."""
        return load_signer(self._operators / f"{self._name}.pem")

    def roots(self) -> list[PrivateSigner]:
        """Give the roots' keys that are here."""
        return load_signers(self._roots)
