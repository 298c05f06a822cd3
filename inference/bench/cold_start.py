"""The cost of serving only signed models, from storage that holds nothing but ciphertext."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inference.model.transformer import load_model
from inference.registry.dsse import Trust
from inference.registry.keys import SigningKey
from inference.registry.release import ReleaseTerms, sign_folder
from inference.registry.store import ModelRegistry
from inference.registry.wrapping import TenantRecipient

GIB = 1 << 30
_ALGORITHMS = ("ed25519", "ml-dsa-65")


class _Keyring:
    """Wraps under a key of this process."""

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(256))

    def wrap(self, secret: bytes, context: str) -> str:
        nonce = os.urandom(12)
        return (nonce + self._cipher.encrypt(nonce, secret, context.encode())).hex()

    def unwrap(self, wrapped: str, context: str) -> bytes:
        raw = bytes.fromhex(wrapped)
        return self._cipher.decrypt(raw[:12], raw[12:], context.encode())


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds for a GiB of weights."""

    wall: float
    processor: float


def seconds_per_gib(folder: Path, rounds: int = 3) -> Cost:
    """From ciphertext on disk to a loaded model: decrypt, verify, read; the best of ``rounds`` of each clock."""
    now = int(time.time())
    keys = [SigningKey.generate(name) for name in _ALGORITHMS]
    with tempfile.TemporaryDirectory() as name:
        signed = Path(name) / "signed"
        shutil.copytree(folder, signed)
        manifest = sign_folder(
            signed,
            keys,
            ReleaseTerms(model="bench", version=1, licence="Apache-2.0", issued=now - 60, expires=now + 86_400),
        )
        trust, holder = Trust([key.public for key in keys], _ALGORITHMS), TenantRecipient(_Keyring())
        registry = ModelRegistry(Path(name) / "registry", trust, actor="bench", clock=lambda: int(time.time() * 1000))
        registry.add(signed, [holder])
        wall = processor = float("inf")
        for _ in range(rounds):
            begun, spent = time.perf_counter(), time.process_time()
            with registry.open("bench", 1, holder) as opened:
                load_model(opened.folder)
            wall, processor = min(wall, time.perf_counter() - begun), min(processor, time.process_time() - spent)
    return Cost(wall * GIB / manifest.size, processor * GIB / manifest.size)
