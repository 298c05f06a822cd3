"""Shares of traffic: the version that answers a request, fixed by the request's id alone. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from inference.registry.refusal import ModelRefused

WHOLE = 10_000
"""Shares are in basis points: 10,000 are all traffic."""


def shares_of(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Shares by version. Raises ModelRefused where a version comes twice: no one can tell which share was meant."""
    shares: dict[int, int] = {}
    for version, share in pairs:
        if version in shares:
            raise ModelRefused("rollout", f"shares: expected each version once, got {version} again")
        shares[version] = share
    return shares


def check_shares(shares: Mapping[int, int]) -> None:
    """Raises ModelRefused unless shares are positive and sum to the whole."""
    if not shares or min(shares.values()) <= 0 or sum(shares.values()) != WHOLE:
        raise ModelRefused(
            "rollout", f"shares: expected positive basis points that sum to {WHOLE} (100 %), got {dict(shares)}"
        )


def choose(shares: Mapping[int, int], model: str, request: str) -> int:
    """The version for one request: the same on every worker, restart and retry.

    Later versions take the low end of the range, so a request that was on the latest stays on it while its share
    grows. Each model draws on its own. Raises ModelRefused for shares that ``check_shares`` refuses.
    """
    check_shares(shares)
    name = model.encode()
    digest = hashlib.blake2b(
        len(name).to_bytes(2, "big") + name + request.encode("utf-8", "surrogatepass"),
        digest_size=8,
        person=b"sluice.rollout",
    ).digest()
    point = int.from_bytes(digest, "big") * WHOLE >> 64
    versions = sorted(shares, reverse=True)
    for version in versions:
        point -= shares[version]
        if point < 0:
            return version
    return versions[-1]


def without(shares: Mapping[int, int], version: int) -> dict[int, int]:
    """The shares once ``version`` is gone: what it had goes to the latest that remains."""
    left = {other: share for other, share in shares.items() if other != version}
    if left:
        left[max(left)] += shares.get(version, 0)
    return left
