"""One file encrypted in chunks: AES-256-GCM in the STREAM construction.

Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (CRYPTO
2015): the nonce of chunk i is ``prefix (7) ‖ i (4) ‖ last (1)``, so chunks cannot be cut off, swapped, repeated or
taken from another file. Each file has a key of its own by HKDF-SHA256 (RFC 5869) of the data key, a random salt and
what the file is, so a prefix may repeat between files.

``header = "SLS1" ‖ chunk size (4) ‖ salt (32) ‖ prefix (7)``, then the chunks, each 16 bytes longer than its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from inference.registry.refusal import ModelRefused

KEY_BYTES = 32
CHUNK_BYTES = 1 << 20
MAX_CHUNK_BYTES = 16 << 20
TAG_BYTES = 16
_MAGIC = b"SLS1"
_SALT, _PREFIX = 32, 7
HEADER_BYTES = len(_MAGIC) + 4 + _SALT + _PREFIX
_INFO = b"sluice/model-file/v1\x00"

Fill = Callable[[memoryview], int]
"""Reads into a buffer until it is full or nothing is left; gives the count."""
Entropy = Callable[[int], bytes]


def ciphertext_size(size: int, chunk: int = CHUNK_BYTES) -> int:
    """Bytes of the ciphertext of ``size`` bytes."""
    return HEADER_BYTES + size + TAG_BYTES * max(1, -(-size // chunk))


def encrypt(fill: Fill, size: int, key: bytes, context: bytes, entropy: Entropy) -> Iterator[memoryview]:
    """Header and encrypted chunks of ``size`` bytes; each piece is good until the next.

    Raises ModelRefused where there are fewer.
    """
    salt = entropy(_SALT)
    prefix = entropy(_PREFIX)
    header = _MAGIC + CHUNK_BYTES.to_bytes(4, "big") + salt + prefix
    cipher = _cipher(key, salt, context)
    yield memoryview(header)
    plaintext = memoryview(bytearray(CHUNK_BYTES))
    ciphertext = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))
    for index, count in enumerate(_counts(size, CHUNK_BYTES)):
        if fill(plaintext[:count]) != count:
            raise ModelRefused("altered", "encrypt: the file became shorter while it was read; try again")
        last = (index + 1) * CHUNK_BYTES >= size
        nonce = _nonce(prefix, index, last)
        written = cipher.encrypt_into(nonce, plaintext[:count], header, ciphertext[: count + TAG_BYTES])
        yield ciphertext[:written]


def decrypt(fill: Fill, size: int, key: bytes, context: bytes) -> Iterator[memoryview]:
    """The ``size`` bytes that were encrypted, chunk by chunk, each authenticated before it is given out.

    A piece is good until the next is asked for. Raises ModelRefused at the first byte that differs, also where the file
    is longer or shorter; the pieces before are authentic but not the whole.
    """
    raw = memoryview(bytearray(HEADER_BYTES))
    if fill(raw) != HEADER_BYTES or raw[: len(_MAGIC)] != _MAGIC:
        raise ModelRefused("sealed", "expected an encrypted file of sluice; fetch the model again")
    header = bytes(raw)
    chunk = int.from_bytes(header[4:8], "big")
    if not 1 <= chunk <= MAX_CHUNK_BYTES:
        raise ModelRefused("sealed", f"encrypted file: expected chunks of 1 to {MAX_CHUNK_BYTES} bytes, got {chunk}")
    cipher = _cipher(key, header[8 : 8 + _SALT], context)
    ciphertext = memoryview(bytearray(chunk + TAG_BYTES))
    plaintext = memoryview(bytearray(chunk))
    for index, count in enumerate(_counts(size, chunk)):
        nonce = _nonce(header[8 + _SALT :], index, (index + 1) * chunk >= size)
        try:
            if fill(ciphertext[: count + TAG_BYTES]) != count + TAG_BYTES:
                raise InvalidTag
            cipher.decrypt_into(nonce, ciphertext[: count + TAG_BYTES], header, plaintext[:count])
        except InvalidTag:
            raise ModelRefused(
                "sealed",
                f"encrypted file: chunk {index} does not open: altered bytes, a file cut short, or the key of another "
                "version; fetch the model again",
            ) from None
        yield plaintext[:count]
    if fill(ciphertext[:1]):
        raise ModelRefused("sealed", "encrypted file: expected its end, got more bytes; fetch the model again")


def _cipher(key: bytes, salt: bytes, context: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, _INFO + context).derive(key))


def _counts(size: int, chunk: int) -> Iterator[int]:
    """Bytes of text in each chunk; an empty file has one empty chunk, which authenticates that it is empty."""
    for start in range(0, max(size, 1), chunk):
        yield min(chunk, size - start)


def _nonce(prefix: bytes, index: int, last: bool) -> bytes:
    return prefix + index.to_bytes(4, "big") + bytes((last,))
