"""Texts are sealed before they reach Kafka or ClickHouse and opened only at the rim and in compute.

AES-256-GCM (NIST SP 800-38D) under a key derived per text by HKDF-SHA256 (RFC 5869) from the tenant's data key and a
random 16-byte salt, so one key never seals two texts. A text of suite 2 names the data key; of suite 1, as producers
write it and as all did before keys had ids, none. Direct producers use a content key, wrapped to the tenant's HPKE key
(RFC 9180, X25519, HKDF-SHA256, AES-256-GCM) in the record's header.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from pipeline.errors import Malformed
from pipeline.events.keyed import hmac_sha256

SUITE, SUITE_NAMED = 1, 2
ID_BYTES = 8
_SALT, _NONCE, _TAG = 16, 12, 16
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_WRAP_CONTEXT = b"sluice/content-key/v1"
OVERHEAD = 1 + _SALT + _NONCE + _TAG

Entropy = Callable[[int], bytes]


def associated_data(generation: str, tenant: str, kind: str, field: str, client_request: str) -> bytes:
    """Bind an encrypted text to its request: it opens nowhere else."""
    return "\x1f".join((generation, tenant, kind, field, client_request)).encode()


def fingerprint(secret: bytes) -> str:
    """Give the id of a secret: 16 hex digits that tell nothing of it."""
    return hmac_sha256(secret, b"sluice/key-id/v1")[:ID_BYTES].hex()


def encrypt_text(key: bytes, bound_to: bytes, text: bytes, entropy: Entropy, key_id: str = "") -> bytes:
    """``suite ‖ key id ‖ salt ‖ nonce ‖ ciphertext ‖ tag``; OVERHEAD bytes, and those of an id, above ``text``."""
    salt, nonce = entropy(_SALT), entropy(_NONCE)
    body = AESGCM(_derive(key, salt)).encrypt(nonce, text, bound_to)
    header = bytes((SUITE_NAMED,)) + bytes.fromhex(key_id) if key_id else bytes((SUITE,))
    return header + salt + nonce + body


def named_key(sealed: bytes) -> str:
    """Give the id of the key that a sealed text names, empty where it names none."""
    return sealed[1 : 1 + ID_BYTES].hex() if sealed[:1] == bytes((SUITE_NAMED,)) else ""


def decrypt_text(key: bytes, bound_to: bytes, sealed: bytes) -> bytes:
    """The text. Raises Malformed where the key, the binding or a byte differs."""
    at = 1 + ID_BYTES if sealed[:1] == bytes((SUITE_NAMED,)) else 1
    if len(sealed) < OVERHEAD + at - 1 or sealed[0] not in (SUITE, SUITE_NAMED):
        raise Malformed(f"sealed text: expected suite 1 or 2 and at least {OVERHEAD} bytes, got {len(sealed)}")
    salt, nonce = sealed[at : at + _SALT], sealed[at + _SALT : at + _SALT + _NONCE]
    try:
        return AESGCM(_derive(key, salt)).decrypt(nonce, sealed[at + _SALT + _NONCE :], bound_to)
    except InvalidTag:
        raise Malformed("sealed text does not open: other key, other request, or altered bytes") from None


def wrap_content_key(public: bytes, content_key: bytes) -> bytes:
    """A content key for the holder of the tenant's HPKE key. ``public`` is 32 raw bytes."""
    return _SUITE.encrypt(content_key, X25519PublicKey.from_public_bytes(public), _WRAP_CONTEXT)


def unwrap_content_key(private: bytes, wrap: bytes) -> bytes:
    """The 32-byte content key. Raises Malformed."""
    try:
        content_key = _SUITE.decrypt(wrap, X25519PrivateKey.from_private_bytes(private), _WRAP_CONTEXT)
    except (InvalidTag, ValueError):
        raise Malformed("wrapped content key does not open with the tenant's key") from None
    if len(content_key) != 32:
        raise Malformed(f"content key: expected 32 bytes, got {len(content_key)}")
    return content_key


def _derive(key: bytes, salt: bytes) -> bytes:
    return hmac_sha256(hmac_sha256(salt, key), b"sluice/text/v1\x01")
