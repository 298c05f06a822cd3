"""A checkpoint is a C2SP tlog-checkpoint in a C2SP signed note, with two signatures that must both hold.

Ed25519 is signature type 0x01 of c2sp.org/signed-note, over the whole body. ML-DSA-44 is type 0x06 of
c2sp.org/tlog-cosignature, over the ``cosigned_message`` of origin, size, root and the time in Unix seconds. One
extension line, ``manifest BASE64``, carries the SHA-256 of what the log says about the batch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from pipeline.errors import ConfigError, Malformed

ED25519, ML_DSA_44 = 1, 6
SEED_BYTES = 32
MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 16
MAX_EXTENSIONS = 4
_MARK = "\u2014 "
_UNTIL = " until "
_LABEL = b"subtree/v1\n\x00"
_PUBLIC_BYTES = {ED25519: 32, ML_DSA_44: 1312}
_SIGNATURE_BYTES = {ED25519: 64, ML_DSA_44: 8 + 2420}
_FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_KEY_HASH = re.compile(r"[0-9a-f]{8}")
_NAME = re.compile(r"[^\s+\x00-\x20]{1,255}")

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log commits to a root (32 bytes) of its first ``size`` leaves at ``time`` (Unix s)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    time: int = 0
    key: int = field(default=0, compare=False)
    """Ordinal of the key pair that signed, among those that its reader trusts, oldest first."""

    @property
    def body(self) -> str:
        """Write the note text of tlog-checkpoint, final newline included."""
        lines = (self.origin, str(self.size), _base64(self.root), *self.extensions)
        return "\n".join(lines) + "\n"


class LogKeys:
    """A log has two signing keys under one key name. The sealer alone holds them."""

    def __init__(self, name: str, ed25519_seed: bytes, ml_dsa_seed: bytes) -> None:
        """Raises ConfigError for a name that C2SP forbids or a seed that is not 32 bytes."""
        for seed in (ed25519_seed, ml_dsa_seed):
            if len(seed) != SEED_BYTES:
                raise ConfigError(f"log key seed: expected {SEED_BYTES} bytes, got {len(seed)}")
        if not _NAME.fullmatch(name):
            raise ConfigError("log key name: expected 1 to 255 characters without spaces, controls and plus")
        self.name = name
        self._ed25519 = Ed25519PrivateKey.from_private_bytes(ed25519_seed)
        self._ml_dsa = MLDSA44PrivateKey.from_seed_bytes(ml_dsa_seed)
        self._public = (
            (ED25519, self._ed25519.public_key().public_bytes_raw()),
            (ML_DSA_44, self._ml_dsa.public_key().public_bytes_raw()),
        )
        self._ids = tuple(key_id(name, kind, public) for kind, public in self._public)

    @classmethod
    def generate(cls, name: str, entropy: Entropy) -> LogKeys:
        """Make new keys from ``entropy(count) -> bytes``."""
        return cls(name, entropy(SEED_BYTES), entropy(SEED_BYTES))

    @property
    def verifier_keys(self) -> tuple[str, str]:
        """Give ``name+hash+base64`` of both public keys, Ed25519 first."""
        ed25519, ml_dsa = (verifier_key(self.name, kind, public) for kind, public in self._public)
        return ed25519, ml_dsa

    def signed(self, note: str) -> bool:
        """Tell whether a note bears these keys' names; whether its signatures hold is not looked at."""
        named = {_signature(line)[:2] for line in parse_note(note)[1]}
        return all((self.name, identifier) in named for identifier in self._ids)

    def sign(self, checkpoint: Checkpoint) -> str:
        """Write the signed note."""
        body = checkpoint.body
        stamp = struct.pack(">Q", checkpoint.time)
        signatures = (
            self._ed25519.sign(body.encode()),
            stamp + self._ml_dsa.sign(cosigned_message(self.name, checkpoint)),
        )
        lines = [
            f"{_MARK}{self.name} {_base64(identifier + signed)}\n"
            for identifier, signed in zip(self._ids, signatures, strict=True)
        ]
        return f"{body}\n{''.join(lines)}"


class TrustedKey(NamedTuple):
    """One public key of a log is trusted; ``ordinal`` counts the keys of its type in the order of coming into force."""

    kind: int
    public: bytes
    ordinal: int
    end: int | None
    """Unix s after which it signed nothing; None for one in use."""


class Verifiers:
    """An auditor trusts these public keys: at least one of each type, those of each type oldest first.

    Behind a key may stand ``until`` and Unix seconds: it was retired then, and nothing later bears its signature.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        """Raises ConfigError naming what is wrong with a verifier key."""
        self._keys: dict[tuple[str, bytes], TrustedKey] = {}
        for line in keys:
            text, retired, end = line.strip().partition(_UNTIL)
            if retired and not _NUMBER.fullmatch(end):
                raise ConfigError(f"verifier key: expected Unix seconds behind until, got {end[:20]!r}; copy it again")
            name, kind, public = _parse_verifier_key(text)
            ordinal = sum(known.kind == kind for known in self._keys.values())
            self._keys.setdefault(
                (name, key_id(name, kind, public)), TrustedKey(kind, public, ordinal, int(end) if end else None)
            )
        if {known.kind for known in self._keys.values()} != set(_PUBLIC_BYTES):
            raise ConfigError("verifier keys: expected at least one Ed25519 (type 1) and one ML-DSA-44 (type 6) key")

    def find(self, name: str, identifier: bytes) -> TrustedKey | None:
        """Find the key of a known signer."""
        return self._keys.get((name, identifier))


def key_name(text: str) -> str:
    """Give ``name+hash`` of a verifier key, by which it is known."""
    # base64 may hold a plus as well
    return "+".join(text.split("+", 2)[:2])


def with_ends(keys: Iterable[str], ends: Mapping[str, int]) -> list[str]:
    """Write verifier keys as ``Verifiers`` takes them, each retired one with its end (Unix s by ``key_name``)."""
    return [f"{text}{_UNTIL}{ends[key_name(text)]}" if key_name(text) in ends else text for text in keys]


def sign_checkpoint(
    keys: LogKeys, origin: str, size: int, root: bytes, time: int, extensions: tuple[str, ...] = ()
) -> str:
    """Sign a note over one tree head; ``time`` in Unix seconds."""
    return keys.sign(Checkpoint(origin, size, root, extensions, time))


def open_checkpoint(text: str, verifiers: Verifiers) -> Checkpoint:
    """Read a checkpoint: an Ed25519 and an ML-DSA-44 signature of known keys hold, and none of a known key fails.

    Lines of unknown keys are ignored. Raises Malformed, saying what was expected, also where a key had been retired.
    """
    checkpoint, lines = parse_note(text)
    newest: dict[int, int] = {}
    ends: list[int] = []
    time = 0
    for line in lines:
        name, identifier, signature = _signature(line)
        known = verifiers.find(name, identifier)
        if known is None:
            continue
        stamp = verify_signature(known.kind, known.public, name, checkpoint, signature)
        time = max(time, stamp)
        newest[known.kind] = max(newest.get(known.kind, 0), known.ordinal)
        ends += [] if known.end is None else [known.end]
    if set(newest) != set(_PUBLIC_BYTES):
        raise Malformed(
            f"checkpoint: expected Ed25519 and ML-DSA-44 signatures of known keys, got types {set(newest) or ''}"
        )
    if ends and time > min(ends):
        raise Malformed(f"checkpoint: signed at {time} by a log key that was retired at {min(ends)}")
    # the older of the two: who holds one half of a newer pair has not signed with it
    return replace(checkpoint, time=time, key=min(newest.values()))


def verify_signature(kind: int, public: bytes, name: str, checkpoint: Checkpoint, signature: bytes) -> int:
    """Give the time (Unix s; 0 for Ed25519) of a signature that holds. Raises Malformed where it does not."""
    if len(signature) != _SIGNATURE_BYTES[kind]:
        raise Malformed(f"checkpoint: expected a signature of {_SIGNATURE_BYTES[kind]} bytes, got {len(signature)}")
    try:
        if kind == ED25519:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, checkpoint.body.encode())
            return 0
        time = int.from_bytes(signature[:8], "big")
        stated = Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, (), time)
        MLDSA44PublicKey.from_public_bytes(public).verify(signature[8:], cosigned_message(name, stated))
    except InvalidSignature:
        raise Malformed(f"checkpoint: signature type {kind} of {name} does not hold") from None
    return time


def cosigned_message(name: str, checkpoint: Checkpoint) -> bytes:
    """Give the bytes that ML-DSA-44 signs: ``cosigned_message`` of c2sp.org/tlog-cosignature with start 0."""
    cosigner, origin = name.encode(), checkpoint.origin.encode()
    return b"".join(
        (
            _LABEL,
            struct.pack(">B", len(cosigner)),
            cosigner,
            struct.pack(">QB", checkpoint.time, len(origin)),
            origin,
            struct.pack(">QQ", 0, checkpoint.size),
            checkpoint.root,
        )
    )


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """Give the first four bytes of SHA-256(name || newline || type || public key)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes((kind,)) + public).digest()[:4]


def verifier_key(name: str, kind: int, public: bytes) -> str:
    """Write a verifier key: ``name+hash+base64(type || public key)``."""
    return f"{name}+{key_id(name, kind, public).hex()}+{_base64(bytes((kind,)) + public)}"


def parse_note(text: str) -> tuple[Checkpoint, Sequence[str]]:
    """Split a note into body and signature lines, none of them believed yet. Raises Malformed."""
    if len(text) > MAX_NOTE_BYTES:
        raise Malformed(f"checkpoint: expected at most {MAX_NOTE_BYTES} characters, got {len(text)}")
    if _FORBIDDEN.search(text):
        raise Malformed("checkpoint: expected no control characters and no half surrogates")
    body, gap, signed = text.rpartition("\n\n")
    if not gap or not signed.endswith("\n"):
        raise Malformed("checkpoint: expected a body, an empty line, and signature lines that end in a newline")
    lines, signatures = body.split("\n"), signed[:-1].split("\n")
    if not 3 <= len(lines) <= 3 + MAX_EXTENSIONS or not all(lines):
        raise Malformed(f"checkpoint: expected 3 to {3 + MAX_EXTENSIONS} lines with content, got {len(lines)}")
    if len(signatures) > MAX_SIGNATURES:
        raise Malformed(f"checkpoint: expected at most {MAX_SIGNATURES} signatures, got {len(signatures)}")
    if len(lines[0].encode()) > 255:
        raise Malformed("checkpoint: expected an origin of at most 255 bytes")
    if not _NUMBER.fullmatch(lines[1]):
        raise Malformed("checkpoint: expected a decimal size without leading zeros")
    root = _unbase64("root", lines[2])
    if len(root) != 32:
        raise Malformed(f"checkpoint: expected a root of 32 bytes, got {len(root)}")
    return Checkpoint(lines[0], int(lines[1]), root, tuple(lines[3:])), signatures


def _signature(line: str) -> tuple[str, bytes, bytes]:
    """Read key name, key id and signature bytes of one line."""
    name, space, encoded = line.removeprefix(_MARK).partition(" ")
    if not line.startswith(_MARK) or not space or not _NAME.fullmatch(name):
        raise Malformed("checkpoint: expected signature lines of em dash, key name and base64")
    raw = _unbase64("signature", encoded)
    if len(raw) < 5:
        raise Malformed(f"checkpoint: expected a signature of more than 4 bytes, got {len(raw)}")
    return name, raw[:4], raw[4:]


def _parse_verifier_key(text: str) -> tuple[str, int, bytes]:
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or not _NAME.fullmatch(parts[0]) or not _KEY_HASH.fullmatch(parts[1]):
        raise ConfigError("verifier key: expected name+hash+base64 with a hash of 8 hexadecimal digits")
    try:
        raw = _unbase64("verifier key", parts[2])
    except Malformed as error:
        raise ConfigError(str(error)) from None
    kind, public = raw[0] if raw else 0, raw[1:]
    if len(public) != _PUBLIC_BYTES.get(kind):
        raise ConfigError(f"verifier key: expected type 1 with 32 or type 6 with 1312 bytes, got type {kind}")
    if key_id(parts[0], kind, public).hex() != parts[1]:
        raise ConfigError("verifier key: the hash is not that of the name and key; copy the whole key again")
    return parts[0], kind, public


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _unbase64(what: str, text: str) -> bytes:
    """Decode standard base64 in its one canonical spelling."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{what}: expected standard base64") from None
    if _base64(raw) != text:
        raise Malformed(f"{what}: expected canonical base64")
    return raw
