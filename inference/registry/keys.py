"""Signing keys: RSA-PSS-3072 (RFC 8017), Ed25519 (RFC 8032), ML-DSA-65 (FIPS 204) and ECDSA P-256 for outside tools.

Private keys are PKCS #8, public keys SubjectPublicKeyInfo, both PEM, so ``openssl`` reads them too.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

from inference.registry.refusal import ModelRefused

RSA_PSS = "rsa-pss-3072"
ED25519 = "ed25519"
ML_DSA = "ml-dsa-65"
ECDSA = "ecdsa-p256"
MANIFEST_ALGORITHMS = (RSA_PSS, ED25519, ML_DSA)
"""Algorithms that may sign a manifest; ``ecdsa-p256`` signs the OpenSSF bundle alone."""
MAX_PEM_BYTES = 64 << 10
_RSA_BITS = 3072
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
_ECDSA = ec.ECDSA(hashes.SHA256())
_PRIVATE = re.compile(r"-----BEGIN PRIVATE KEY-----\n.*?-----END PRIVATE KEY-----\n?", re.DOTALL)
_PUBLIC = re.compile(r"-----BEGIN PUBLIC KEY-----\n.*?-----END PUBLIC KEY-----\n?", re.DOTALL)
_PrivateKey: TypeAlias = rsa.RSAPrivateKey | Ed25519PrivateKey | MLDSA65PrivateKey | ec.EllipticCurvePrivateKey
_PublicKey: TypeAlias = rsa.RSAPublicKey | Ed25519PublicKey | MLDSA65PublicKey | ec.EllipticCurvePublicKey
_MAKE: dict[str, Callable[[], _PrivateKey]] = {
    RSA_PSS: lambda: rsa.generate_private_key(65537, _RSA_BITS),
    ED25519: Ed25519PrivateKey.generate,
    ML_DSA: MLDSA65PrivateKey.generate,
    ECDSA: lambda: ec.generate_private_key(ec.SECP256R1()),
}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key that a verifier chose to believe."""

    algorithm: str
    pem: bytes
    keyid: str
    _key: _PublicKey

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """True where the signature holds."""
        try:
            if isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, message, _PSS, hashes.SHA256())
            elif isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, message, _ECDSA)
            else:
                self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key; it has no printable form but PEM."""

    def __init__(self, key: _PrivateKey) -> None:
        self._key = key
        self.public = _verifying(key.public_key())

    @classmethod
    def generate(cls, algorithm: str) -> SigningKey:
        """A fresh key from the system's randomness."""
        return cls(_MAKE[algorithm]())

    def sign(self, message: bytes) -> bytes:
        """The raw signature; ECDSA in DER."""
        if isinstance(self._key, rsa.RSAPrivateKey):
            return self._key.sign(message, _PSS, hashes.SHA256())
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(message, _ECDSA)
        return self._key.sign(message)

    def pem(self) -> bytes:
        """PKCS #8 without a passphrase; belongs in a file of mode 0600 and nowhere else."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def read_verifying_keys(path: Path) -> list[VerifyingKey]:
    """All public keys of a PEM file. Raises ModelRefused."""
    keys = [_verifying(_load(path, block, private=False)) for block in _PUBLIC.findall(_read(path))]
    if not keys:
        raise ModelRefused("key", f"{path}: expected one or more PEM blocks PUBLIC KEY, got none")
    return keys


def read_signing_keys(path: Path) -> list[SigningKey]:
    """All private keys of a PEM file that only its owner may read. Raises ModelRefused."""
    text = _read(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ModelRefused("key", f"{path}: expected a key file that only its owner may read; run: chmod 600 {path}")
    keys = [SigningKey(_load(path, block, private=True)) for block in _PRIVATE.findall(text)]
    if not keys:
        raise ModelRefused("key", f"{path}: expected one or more PEM blocks PRIVATE KEY, got none")
    return keys


def write_private(path: Path, raw: bytes) -> None:
    """A secret into a file of mode 0600 that must not exist yet. Raises ModelRefused."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ModelRefused("key", f"{path} exists; a key is never overwritten, choose another name") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_PEM_BYTES + 1)
    except OSError as fault:
        raise ModelRefused("key", f"{path}: expected a PEM file: {fault.strerror}") from None
    if len(raw) > MAX_PEM_BYTES:
        raise ModelRefused("key", f"{path}: expected at most {MAX_PEM_BYTES} bytes of PEM, got more")
    return raw.decode("ascii", "replace").replace("\r\n", "\n")


def _load(path: Path, block: str, *, private: bool) -> Any:
    try:
        if private:
            return serialization.load_pem_private_key(block.encode(), None)
        return serialization.load_pem_public_key(block.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # the library's text could quote the block
        raise ModelRefused("key", f"{path}: a PEM block does not decode; make the keys again") from None


def _verifying(key: Any) -> VerifyingKey:
    encoding, form = serialization.Encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS:
        algorithm = RSA_PSS
    elif isinstance(key, Ed25519PublicKey):
        algorithm = ED25519
    elif isinstance(key, MLDSA65PublicKey):
        algorithm = ML_DSA
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = ECDSA
    else:
        raise ModelRefused(
            "key", f"expected a key of {', '.join(_MAKE)} (RSA of at least {_RSA_BITS} bits), got another"
        )
    keyid = hashlib.sha256(key.public_bytes(encoding.DER, form)).hexdigest()
    return VerifyingKey(algorithm, key.public_bytes(encoding.PEM, form), keyid, key)
