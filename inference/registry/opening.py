"""Opens a model: verify the signed manifest, read each file once into sealed memory, load from that memory.

There is no path that is checked and then opened again, so nothing can be swapped in between.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from inference.registry.content import check_contents, check_name, compare_names
from inference.registry.dsse import Trust
from inference.registry.manifest import PAYLOAD_TYPE, FileEntry, ModelManifest, decode_manifest
from inference.registry.memory import ImmutableBytes
from inference.registry.refusal import ModelRefused
from inference.registry.source import Digests, ModelSource


@dataclass(frozen=True, slots=True)
class Freshness:
    """Limits of age: now in Unix seconds, the lowest version served of each model, and the revoked versions."""

    now: int
    floors: dict[str, int] = field(default_factory=dict)
    revoked: frozenset[tuple[str, int]] = frozenset()

    def check(self, manifest: ModelManifest) -> None:
        """Raise ModelRefused for an expired, older or revoked version."""
        name = f"{manifest.model} version {manifest.version}"
        if manifest.expires <= self.now:
            raise ModelRefused("expired", f"{name}: its signature expired; sign it again, or serve a later version")
        if (manifest.model, manifest.version) in self.revoked:
            raise ModelRefused("revoked", f"{name} was revoked; serve another version")
        floor = self.floors.get(manifest.model, 0)
        if manifest.version < floor:
            raise ModelRefused(
                "rolled_back",
                f"{name}: expected version {floor} or later, which was served here before; to go back on purpose run: "
                f"sluice model rollback {manifest.model}",
            )


class OpenModel:
    """A verified model in sealed memory; close it once the weights are loaded."""

    def __init__(
        self, manifest: ModelManifest, digest: str, files: dict[str, ImmutableBytes], memory: ExitStack
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        """SHA-256 (hex) of the signed manifest; names this version in records and adapters."""
        self._files = files
        self._memory = memory
        self._view: Path | None = None

    def file(self, name: str) -> ImmutableBytes:
        """One file's bytes. Raises KeyError."""
        return self._files[name]

    @property
    def folder(self) -> Path:
        """A private folder, named after the model, whose entries lead to the sealed memory; gone on ``close``.

        Loaders that take a folder read the verified bytes through it, and only in this process.
        """
        if self._view is None:
            root = self._memory.enter_context(tempfile.TemporaryDirectory(prefix="sluice-model-"))
            view = Path(root) / self.manifest.model
            view.mkdir(mode=0o700)
            for name, content in self._files.items():
                (view / name).symlink_to(content.path)
            self._view = view
        return self._view

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()

    def __enter__(self) -> OpenModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_manifest(source: ModelSource, trust: Trust) -> tuple[ModelManifest, str]:
    """A manifest whose signatures hold, and its digest. Raises ModelRefused."""
    payload = trust.open(source.manifest(), PAYLOAD_TYPE)
    return decode_manifest(payload), hashlib.sha256(payload).hexdigest()


def open_model(source: ModelSource, trust: Trust, freshness: Freshness, *, sha256: bool = False) -> OpenModel:
    """A verified model. BLAKE3 is always compared, ``sha256`` where asked for (slow without SHA instructions).

    Raises ModelRefused, or OSError where a file cannot be read.
    """
    manifest, digest = read_manifest(source, trust)
    freshness.check(manifest)
    for entry in manifest.files:
        check_name(entry.path)
    compare_names([entry.path for entry in manifest.files], source.names())
    with ExitStack() as memory:
        files = {}
        for entry in manifest.files:
            content = files[entry.path] = memory.enter_context(ImmutableBytes(entry.path))
            _compare(entry, source.copy(entry.path, entry.size, content, sha256))
        check_contents(files)
        return OpenModel(manifest, digest, files, memory.pop_all())


def _compare(entry: FileEntry, read: Digests) -> None:
    """Raise ModelRefused where a file as it was read is not the one that was signed."""
    if read.blake3 != entry.blake3 or (read.sha256 and read.sha256 != entry.sha256):
        raise ModelRefused(
            "altered",
            f"{entry.path}: expected BLAKE3 {entry.blake3[:16]}…, got {read.blake3[:16]}…: the file was altered or "
            "damaged; fetch the model again",
        )
