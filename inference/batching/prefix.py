"""Names of cached blocks: unforgeable without the worker's secret and apart for each tenant. No torch.

A block's name is HMAC-SHA256 over its parent's name and its tokens; the chain starts from tenant, adapter, model and
dtype. Shared caches without such a salt tell one tenant what another has asked (arXiv 2409.20002), and weak hashes
let one tenant choose a collision (CVE-2025-25183), so a hit is also compared token by token (``blocks``).
"""

from __future__ import annotations

import hmac
from array import array
from collections.abc import Sequence

MIN_SECRET_BYTES = 32


class PrefixKeys:
    """Derives block names under one secret of at least 32 bytes; raises ``ValueError`` for a shorter one."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"prefix secret: expected at least {MIN_SECRET_BYTES} bytes, got {len(secret)}")
        self._secret = secret

    def root(self, tenant: str, lineage: bytes) -> bytes:
        """The start of a tenant's chain; ``lineage`` names model, dtype and adapter."""
        name = tenant.encode()
        # the length keeps (tenant, lineage) pairs apart whose bytes join to the same string
        return hmac.digest(self._secret, b"root" + len(name).to_bytes(4, "big") + name + lineage, "sha256")

    def follow(self, parent: bytes, tokens: Sequence[int]) -> bytes:
        """The name of the block that holds ``tokens`` after ``parent``."""
        return hmac.digest(self._secret, b"next" + parent + array("q", tokens).tobytes(), "sha256")
