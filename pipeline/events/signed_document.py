"""A signed document of ``control``: its form, the bytes that are signed, and the digest by which a version is known.

The record is JSON as ``encode`` gives it, and in no other form; the document in it stays text, so the signature is
over the bytes that were signed and never over a copy written anew.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable
from typing import Protocol

import msgspec

from pipeline.events.control import AnyDocument

MAX_DOCUMENT = 256 * 1024
"""Bytes of a signed record at most."""
MAX_SIGNATURES = 16
DEPLOYMENT = "deployment/deployment"
_FRAME = struct.Struct(">QQ")
_DOMAIN = b"sluice/control/v1\n"


class DocumentSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key signed."""

    key: str
    """First 16 hex digits of the SHA-256 of the raw public key."""
    signature: bytes
    """Ed25519 (RFC 8032) over ``message``."""


class SignedDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document as it lies in ``control``; its text stays as it was signed."""

    document: str
    replaces: str
    """Digest of the version of the same name that it replaces; empty for none."""
    signatures: tuple[DocumentSignature, ...]


class Signer(Protocol):
    """A private key signs, wherever it is."""

    @property
    def key(self) -> str: ...
    def sign(self, message: bytes) -> bytes: ...


class HasPublic(Protocol):
    """A deployment names this public key."""

    @property
    def public(self) -> str: ...


def raw_public(holder: HasPublic) -> bytes:
    """Give the 32 bytes of a key that a deployment names."""
    return base64.b64decode(holder.public)


def key_id(public: bytes) -> str:
    """Name a raw public key as signatures do."""
    return hashlib.sha256(public).hexdigest()[:16]


def name_of(document: AnyDocument) -> str:
    """Name a document among those of all kinds."""
    return f"{document.doc}/{document.id}"


def message(generation: str, name: str, replaces: str, document: str) -> bytes:
    """Give the bytes that are signed. ``generation`` is empty for the first signed document of a deployment."""
    lines = (generation, name, replaces, hashlib.sha256(document.encode()).hexdigest())
    return _DOMAIN + "\n".join(lines).encode()


def digest(signed: bytes) -> str:
    """Give the digest of a version: of its message, or of an unsigned record's whole value."""
    return hashlib.sha256(signed).hexdigest()


def generation_of(pin: str) -> str:
    """Give the generation's id, which follows from the first deployment document."""
    return f"g{pin[:16]}"


def sign(generation: str, document: AnyDocument, replaces: str, signers: Iterable[Signer]) -> SignedDocument:
    """Sign a document as the successor of the version with the digest ``replaces``."""
    text = document.model_dump_json()
    signed = message(generation, name_of(document), replaces, text)
    return SignedDocument(text, replaces, tuple(DocumentSignature(s.key, s.sign(signed)) for s in signers))


def extend_prefix(prefix: hashlib._Hash, offset: int, value: bytes) -> None:
    """Add a record to the digest over all records so far."""
    prefix.update(_FRAME.pack(offset, len(value)))
    prefix.update(value)
