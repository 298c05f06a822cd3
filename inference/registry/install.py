"""A signed folder that a deployment begins with: into the registry at the first start, encrypted from then on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inference.registry.atomic import locked
from inference.registry.dsse import Trust
from inference.registry.opening import read_manifest
from inference.registry.source import PlainFolder
from inference.registry.store import ModelRegistry
from inference.registry.traffic import WHOLE
from inference.registry.wrapping import Recipient


def install(registry: ModelRegistry, trust: Trust, folder: Path, to: Sequence[Recipient]) -> str:
    """Add the version in ``folder`` where the registry has none as high, and give it all traffic.

    Gives the model's id. Both acts are on record; ``rollback`` goes back to the shares before. Of workers that begin
    together one adds. Raises ModelRefused.
    """
    manifest, _ = read_manifest(PlainFolder(folder), trust)
    with locked(registry.home / ".install.lock"):
        latest = max(registry.versions(manifest.model), default=0)
        if latest < manifest.version:
            registry.add(folder, to)
            registry.rollouts.roll(manifest.model, {manifest.version: WHOLE})
        elif not registry.rollouts.shares(manifest.model):
            # a crash came between the two
            registry.rollouts.roll(manifest.model, {latest: WHOLE})
    return manifest.model
