"""One watermark key for each tenant and epoch, and the pseudo-random bits it gives to (context, token).

Key: HKDF-SHA256 (RFC 5869) of the tenant's secret (``secrets``). Bits: AES-256 as a CBC-MAC over two fixed blocks, the
context of four tokens and the token. For inputs of one length that is a pseudo-random function (Bellare, Kilian,
Rogaway 2000), so no one without the key can tell the bits from coin flips; the same on every device, unlike a generator
on a GPU.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from inference.watermark.secrets import SECRET_BYTES

CONTEXT = 4
"""Tokens before the one that is drawn; one edited token spoils five draws."""
LAYERS = 30
"""Rounds of the tournament: bits taken of each (context, token)."""
EPOCH_MS = 30 * 86_400_000
BLOCK_WORDS = 4
WORD = np.dtype("<u4")
"""Little-endian on every machine, so that text marked on one is detected on another."""
Tokens = NDArray[np.uint32]
Bits = NDArray[np.uint8]


def epoch_of(time_ms: int) -> int:
    """Number of the key epoch (30 days) at a time in Unix milliseconds."""
    return time_ms // EPOCH_MS


class MarkKey:
    """The key of one tenant in one epoch; of one thread at a time."""

    def __init__(self, secret: bytes, tenant: str, epoch: int) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"watermark secret: expected at least {SECRET_BYTES} bytes, got {len(secret)}")
        name = tenant.encode()
        info = b"sluice/watermark/v1\x00" + len(name).to_bytes(2, "big") + name + epoch.to_bytes(8, "big")
        key = HKDF(SHA256(), 32, None, info).derive(secret)
        self.tenant = tenant
        self.epoch = epoch
        # one block at a time, each independent: the mode's weakness is what a PRF needs
        self._encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305

    def encrypt(self, blocks: Tokens) -> Tokens:
        """Encrypt ``[n, 4]`` little-endian words, each row one block of the MAC; gives ``[n, 4]``."""
        raw = self._encryptor.update(np.ascontiguousarray(blocks, dtype=WORD).data.cast("B"))
        return np.frombuffer(raw, dtype=WORD).reshape(-1, BLOCK_WORDS)


def with_token(mixed: Tokens, tokens: Tokens) -> Tokens:
    """Second blocks of the MAC: encrypted contexts ``[..., 4]`` with ``[...]`` tokens mixed in."""
    blocks = np.array(mixed, dtype=WORD)
    blocks[..., 0] ^= tokens
    return blocks


def bits_of(octets: Tokens) -> Bits:
    """``[..., LAYERS]`` bits (0 or 1) of ``[..., 4]`` encrypted words."""
    return np.unpackbits(octets.view(np.uint8)[..., : -(-LAYERS // 8)], axis=-1)[..., :LAYERS]
