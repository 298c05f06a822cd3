"""Signed envelopes: DSSE 1.0.2 (github.com/secure-systems-lab/dsse), and the keys that sign and verify them.

The algorithm of a signature is that of the trusted key it names, never what an envelope claims.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec

from inference.registry.keys import SigningKey, VerifyingKey
from inference.registry.refusal import ModelRefused

MAX_ENVELOPE_BYTES = 4 << 20
MAX_SIGNATURES = 16


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``keyid`` is the SHA-256 (hex) of the signer's SubjectPublicKeyInfo; ``sig`` is base64."""

    keyid: str
    sig: str


class DsseEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The JSON form; ``payload`` is base64."""

    payload_type: str
    payload: str
    signatures: tuple[Signature, ...]


class Trust:
    """The keys that are believed, and the algorithms that must each have signed."""

    def __init__(self, keys: Iterable[VerifyingKey], required: Iterable[str]) -> None:
        """Raise ModelRefused where a required algorithm has no key, or none is required."""
        self._keys = {key.keyid: key for key in keys}
        self.required = frozenset(required)
        missing = self.required - {key.algorithm for key in self._keys.values()}
        if missing or not self.required:
            raise ModelRefused(
                "key",
                f"trust: expected at least one required algorithm and a public key of each, no key of "
                f"{', '.join(sorted(missing)) or 'any'}; add its PEM or change what is required",
            )

    def open(self, raw: bytes, payload_type: str) -> bytes:
        """The payload, once every required algorithm signed it and no trusted key's signature fails.

        Signatures of unknown keys are ignored. Raises ModelRefused.
        """
        envelope = _decode(raw)
        if envelope.payload_type != payload_type:
            raise ModelRefused(
                "signature",
                f"envelope: expected payload type {payload_type}, got {envelope.payload_type[:128]!r}",
            )
        payload = _unbase64("payload", envelope.payload)
        signed = pae(payload_type, payload)
        verified: set[str] = set()
        for signature in envelope.signatures:
            key = self._keys.get(signature.keyid)
            if key is None:
                continue
            if not key.verifies(_unbase64("sig", signature.sig), signed):
                raise ModelRefused(
                    "signature",
                    f"signature of {key.algorithm} key {key.keyid[:16]} does not hold: the manifest was altered; "
                    "fetch the model again from where it was released",
                )
            verified.add(key.algorithm)
        if not self.required <= verified:
            raise ModelRefused(
                "signature",
                f"expected signatures of trusted keys for {', '.join(sorted(self.required))}, got "
                f"{', '.join(sorted(verified)) or 'none'}; sign with all of them, or trust the signer's public keys",
            )
        return payload


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding (PAE): the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: str, keys: Iterable[SigningKey]) -> bytes:
    """The envelope as JSON, one signature for each key."""
    signed = pae(payload_type, payload)
    signatures = tuple(Signature(key.public.keyid, _base64(key.sign(signed))) for key in keys)
    return msgspec.json.format(msgspec.json.encode(DsseEnvelope(payload_type, _base64(payload), signatures))) + b"\n"


def _decode(raw: bytes) -> DsseEnvelope:
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise ModelRefused("signature", f"envelope: expected at most {MAX_ENVELOPE_BYTES} bytes, got {len(raw)}")
    try:
        envelope = msgspec.json.decode(raw, type=DsseEnvelope)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ModelRefused("signature", f"envelope: expected DSSE in JSON: {fault}; sign the model again") from None
    if len(envelope.signatures) > MAX_SIGNATURES:
        raise ModelRefused(
            "signature", f"envelope: expected at most {MAX_SIGNATURES} signatures, got {len(envelope.signatures)}"
        )
    return envelope


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _unbase64(what: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ModelRefused(
            "signature", f"envelope: expected base64 in {what}, got other text; sign the model again"
        ) from None
