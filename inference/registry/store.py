"""The registry of one deployment: encrypted versions, added, listed and opened.

Every act is recorded, done or refused. An account that may write the registry's folder may lower pins; no account can
make it serve what was not signed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from inference.registry.atomic import sync_folder
from inference.registry.dsse import MAX_ENVELOPE_BYTES, Trust
from inference.registry.encrypted import (
    EncryptedFolder,
    read_sidecars,
    remove_stale,
    source_of,
    write_encrypted,
)
from inference.registry.events import Act, RegistryEvent
from inference.registry.exports import Exports
from inference.registry.folder import RegistryFolder
from inference.registry.listing import BrokenVersion, StoredVersion, require_match, stored_version
from inference.registry.manifest import ModelManifest
from inference.registry.opening import Freshness, OpenModel, open_model
from inference.registry.refusal import ModelRefused
from inference.registry.rollouts import RollOuts
from inference.registry.source import PlainFolder
from inference.registry.state import State
from inference.registry.wrapping import Holder, Recipient


class ModelRegistry:
    """Acts on one registry in the name of ``actor``; ``clock`` gives Unix milliseconds."""

    def __init__(self, home: Path, trust: Trust, *, actor: str, clock: Callable[[], int]) -> None:
        self.home = home
        self._trust = trust
        self._folder = RegistryFolder(home, trust, actor=actor, clock=clock)
        self.rollouts = RollOuts(self._folder)
        self.exports = Exports(self._folder)

    def add(self, folder: Path, to: Sequence[Recipient], holder: Holder | None = None) -> ModelManifest:
        """Verify a signed folder, or what another registry exported for ``holder``, encrypt it for ``to`` and keep it.

        Both digests are compared; the version must be higher than any seen of this model. Raises ModelRefused.
        """
        source = PlainFolder(folder) if holder is None else source_of(folder, lambda: holder)
        freshness = self.freshness(floors=False)
        recorder = self._folder.recorder
        with recorder.attempt("add") as note, open_model(source, self._trust, freshness, sha256=True) as opened:
            manifest = opened.manifest
            note.describe(manifest)
            place = self._folder.place(manifest.model, manifest.version)
            staging = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True, mode=0o700)
            try:
                write_encrypted(opened, read_sidecars(PlainFolder(folder), MAX_ENVELOPE_BYTES), staging, to)
                self._keep(manifest, staging, place)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return manifest

    def list_versions(self, model: str = "") -> list[StoredVersion | BrokenVersion]:
        """Versions in the registry, of one model or all. Raises ModelRefused where its state does not hold."""
        state, freshness = self._folder.state(), self.freshness(floors=False)
        versions: list[StoredVersion | BrokenVersion] = []
        for name in sorted(state.models):
            for version in self.versions(name) if model in ("", name) else ():
                try:
                    versions.append(self._stored(state, freshness, name, version))
                except ModelRefused as fault:
                    # such as one whose signer is trusted no more: the others are to be seen all the same
                    versions.append(BrokenVersion(name, version, fault))
        return versions

    def version(self, model: str, version: int) -> StoredVersion:
        """One version. Raises ModelRefused where it is not here, or its manifest does not hold."""
        self._folder.require(model, version)
        return self._stored(self._folder.state(), self.freshness(floors=False), model, version)

    def versions(self, model: str) -> list[int]:
        """Numbers of the versions of one model, rising."""
        return self._folder.versions(model)

    def freshness(self, *, floors: bool = True) -> Freshness:
        """Limits of age here and now; without ``floors`` no version is too low. Raises ModelRefused."""
        return self._folder.freshness(floors=floors)

    def events(self) -> list[RegistryEvent]:
        """The whole record, oldest first. Raises ModelRefused where its chain is broken."""
        return list(self._folder.recorder.log.read())

    def open(self, model: str, version: int, holder: Holder, act: Act = "load") -> OpenModel:
        """Decrypt and verify one version into sealed memory; ``act`` verify compares SHA-256 too.

        Raises ModelRefused.
        """
        with self._folder.recorder.attempt(act, model, version) as note:
            self._folder.require(model, version)
            source = EncryptedFolder(self._folder.place(model, version), holder)
            freshness = self.freshness(floors=act == "load")
            opened = open_model(source, self._trust, freshness, sha256=act == "verify")
            try:
                require_match(opened.manifest, model, version)
            except ModelRefused:
                opened.close()
                raise
            note.count = opened.manifest.size
            note.to = holder.name
            return opened

    def open_folder(self, folder: Path) -> OpenModel:
        """Verify a signed folder outside the registry and pin its version: an older one is refused from then on."""
        with self._folder.recorder.attempt("load") as note:
            opened = open_model(PlainFolder(folder), self._trust, self.freshness())
            manifest = opened.manifest
            note.describe(manifest)
            with self._folder.changing() as state:
                known = state.of(manifest.model)
                if manifest.version > known.floor:
                    highest = max(known.highest, manifest.version)
                    pinned = state.changed(manifest.model, floor=manifest.version, highest=highest)
                    self._folder.write_state(pinned)
            return opened

    def _keep(self, manifest: ModelManifest, staging: Path, place: Path) -> None:
        """Move a version from ``staging`` to its place, and raise the highest version seen."""
        with self._folder.changing() as state:
            highest = state.of(manifest.model).highest
            # the highest may be known from a folder alone, and be added now
            if manifest.version < highest or (manifest.version == highest and place.exists()):
                raise ModelRefused(
                    "rolled_back",
                    f"{manifest.model}: expected a version above {highest}, got {manifest.version}; sign it "
                    "under the next number",
                )
            # a crash after the rename below leaves a version that the state does not know
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
            sync_folder(place.parent)
            self._folder.write_state(state.changed(manifest.model, highest=manifest.version))
            remove_stale(place.parent, self._folder.now)

    def _stored(self, state: State, freshness: Freshness, model: str, version: int) -> StoredVersion:
        manifest, digest = self._folder.manifest(model, version)
        share = state.of(model).shares.get(version, 0)
        return stored_version(manifest, digest, share, freshness)
