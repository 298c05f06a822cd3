"""What a registry tells of one version that it keeps. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inference.registry.manifest import ModelManifest
from inference.registry.opening import Freshness
from inference.registry.refusal import ModelRefused


@dataclass(frozen=True, slots=True)
class Held:
    """One version in the registry; ``share`` in basis points of traffic, ``status`` served, held, expired, revoked."""

    manifest: ModelManifest
    digest: str
    share: int
    status: str


@dataclass(frozen=True, slots=True)
class Broken:
    """One version in the registry whose manifest does not hold."""

    model: str
    version: int
    why: ModelRefused


def held_of(manifest: ModelManifest, digest: str, share: int, freshness: Freshness) -> Held:
    """A version as of ``freshness``."""
    status = "served" if share else "held"
    status = "expired" if manifest.expires <= freshness.now else status
    status = "revoked" if (manifest.model, manifest.version) in freshness.revoked else status
    return Held(manifest, digest, share, status)


def require_place(manifest: ModelManifest, model: str, version: int) -> None:
    """Raises Refused unless a manifest is that of the place it lies in."""
    if (manifest.model, manifest.version) != (model, version):
        raise ModelRefused("altered", f"{model} version {version}: another version lies in its place; add it again")
