"""One watermark key for each tenant and epoch, and the pseudo-random bits it gives to (context, token).

Key: HKDF-SHA256 (RFC 5869) of a master secret. Bits: AES-256 as a CBC-MAC over two fixed blocks, the context of four
tokens and the token. For inputs of one length that is a pseudo-random function (Bellare, Kilian, Rogaway 2000), so no
one without the key can tell the bits from coin flips; the same on every device, unlike a generator on a GPU.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

CONTEXT = 4
"""Tokens before the one that is drawn; one edited token spoils five draws."""
LAYERS = 30
"""Rounds of the tournament: bits taken of each (context, token)."""
EPOCH_MS = 30 * 86_400_000
MASTER_BYTES = 32
BLOCK_WORDS = 4
WORD = np.dtype("<u4")
"""Little-endian whatever the machine, so that marks travel."""
Tokens = NDArray[np.uint32]
Bits = NDArray[np.uint8]


def epoch_of(time_ms: int) -> int:
    """Number of the key epoch (30 days) at a time in Unix milliseconds."""
    return time_ms // EPOCH_MS


class MarkKey:
    """The key of one tenant in one epoch; of one thread at a time."""

    def __init__(self, master: bytes, tenant: str, epoch: int) -> None:
        if len(master) < MASTER_BYTES:
            raise ValueError(f"watermark master: expected at least {MASTER_BYTES} bytes, got {len(master)}")
        name = tenant.encode()
        info = b"sluice/watermark/v1\x00" + len(name).to_bytes(2, "big") + name + epoch.to_bytes(8, "big")
        secret = HKDF(SHA256(), 32, None, info).derive(master)
        self.tenant, self.epoch = tenant, epoch
        # one block at a time, each independent: the mode's weakness is what a PRF needs
        self._encryptor = Cipher(algorithms.AES(secret), modes.ECB()).encryptor()  # noqa: S305

    def encrypt(self, blocks: Tokens) -> Tokens:
        """``[n, 4]`` little-endian words, each row one block of the MAC."""
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


def read_master(path: Path) -> bytes:
    """The master secret of a file of mode 0600, or 0640 for a worker that runs as another user of its owner's group.

    Raises ValueError, OSError.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o037:
        raise ValueError(f"{path}: expected a file that only its owner may read; run: chmod 600 {path}")
    with path.open("rb") as file:
        master = file.read(MASTER_BYTES + 1)
    if len(master) != MASTER_BYTES:
        raise ValueError(f"{path}: expected {MASTER_BYTES} bytes; restore it, without it no marked text can be traced")
    return master


def create_master(path: Path) -> bytes:
    """The master secret at ``path``, made first where there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(MASTER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # of two processes that begin together one wins, and nobody reads half a key
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    return read_master(path)
