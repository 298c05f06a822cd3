"""Versions of a registry as it lists them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inference.registry.manifest import ModelManifest
from inference.registry.opening import Freshness
from inference.registry.refusal import ModelRefused


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One version in the registry; ``share`` in basis points of traffic, ``status`` served, held, expired, revoked."""

    manifest: ModelManifest
    digest: str
    share: int
    status: str


@dataclass(frozen=True, slots=True)
class BrokenVersion:
    """One version in the registry whose manifest does not hold."""

    model: str
    version: int
    refusal: ModelRefused


def stored_version(manifest: ModelManifest, digest: str, share: int, freshness: Freshness) -> StoredVersion:
    """A version as of ``freshness``."""
    status = "served" if share else "held"
    status = "expired" if manifest.expires <= freshness.now else status
    status = "revoked" if (manifest.model, manifest.version) in freshness.revoked else status
    return StoredVersion(manifest, digest, share, status)


def require_match(manifest: ModelManifest, model: str, version: int) -> None:
    """Raise ModelRefused unless a manifest is that of ``model`` and ``version``, whose folder it lies in."""
    if (manifest.model, manifest.version) != (model, version):
        raise ModelRefused(
            "altered",
            f"{model} version {version}: expected its manifest, got that of {manifest.model} version "
            f"{manifest.version}; add it again",
        )
