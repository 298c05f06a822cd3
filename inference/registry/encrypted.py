"""A model version at rest: its signed manifest in the clear, its files encrypted, its data key wrapped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from inference.registry.atomic import sync_folder, write_atomically
from inference.registry.content import BUNDLE_FILE, MANIFEST_FILE, SIDECARS
from inference.registry.manifest import ModelManifest
from inference.registry.memory import ImmutableBytes
from inference.registry.opening import OpenModel
from inference.registry.refusal import ModelRefused
from inference.registry.source import Digests, ModelSource, PlainFolder, copy_exactly
from inference.registry.stream_cipher import KEY_BYTES, ciphertext_size, decrypt, encrypt
from inference.registry.wrapping import Holder, Recipient, unwrap_for

ENVELOPE_FILE, SUFFIX = "keys.json", ".sealed"
MAX_KEYS_BYTES = 16 << 20
STALE_S = 86_400
"""Seconds; no version takes so long to be written."""
_Entropy = Callable[[int], bytes]


class KeyEnvelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The data key of one version, wrapped for each recipient by name."""

    model: str
    version: int
    recipients: dict[str, str]

    @property
    def context(self) -> str:
        """The context that every wrap is bound to."""
        return f"model/{self.model}/{self.version}"


class EncryptedFolder:
    """A ``ModelSource`` over an encrypted version, for one holder of its data key."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._files = PlainFolder(folder)
        self._holder = holder
        self._key = b""
        self._envelope: KeyEnvelope | None = None

    def manifest(self) -> bytes:
        return self._files.manifest()

    def names(self) -> list[str]:
        names = [name for name in self._files.names() if name not in SIDECARS and name != ENVELOPE_FILE]
        stray = [name for name in names if not name.endswith(SUFFIX)]
        if stray:
            raise ModelRefused("extra_file", f"encrypted model: expected only {SUFFIX} files, got {stray[0][:128]!r}")
        return [name.removesuffix(SUFFIX) for name in names]

    def copy(self, name: str, size: int, into: ImmutableBytes, sha256: bool) -> Digests:
        envelope = self._unlock()
        with self._files.opened(name + SUFFIX) as descriptor:
            pieces = decrypt(filler(descriptor), size, self._key, _context(envelope, name))
            return copy_exactly(name, size, pieces, into, sha256)

    def _unlock(self) -> KeyEnvelope:
        """The envelope, its data key unwrapped once."""
        if self._envelope is None:
            envelope = read_envelope(self._files)
            self._key = unwrap_for(self._holder, envelope.recipients, envelope.context)
            self._envelope = envelope
        return self._envelope


def remove_stale(folder: Path, now: int) -> None:
    """Remove the folders that killed ``add``s have left among a model's versions; ``now`` in Unix seconds."""
    for path in folder.iterdir():
        if path.name.startswith(".") and path.is_dir() and path.stat().st_mtime < now - STALE_S:
            shutil.rmtree(path, ignore_errors=True)


def source_of(folder: Path, holder: Callable[[], Holder]) -> ModelSource:
    """The source of a folder: a plain one as it lies, an encrypted one, such as an export, by the key of ``holder``."""
    path = folder / ENVELOPE_FILE
    return EncryptedFolder(folder, holder()) if path.is_file() and not path.is_symlink() else PlainFolder(folder)


def read_envelope(folder: PlainFolder) -> KeyEnvelope:
    """The wrapped keys of a version at rest. Raises ModelRefused."""
    try:
        return msgspec.json.decode(folder.read(ENVELOPE_FILE, MAX_KEYS_BYTES), type=KeyEnvelope)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        raise ModelRefused(
            "sealed", f"{folder.folder}: expected {ENVELOPE_FILE} with wrapped keys; add it again"
        ) from None


def write_encrypted(model: OpenModel, sidecars: dict[str, bytes], folder: Path, to: Iterable[Recipient]) -> None:
    """Encrypt a verified model into an empty ``folder`` under a fresh data key, wrapped for each of ``to``."""
    key = os.urandom(KEY_BYTES)
    manifest = model.manifest
    for entry in manifest.files:
        content = model.file(entry.path)
        context = _context(manifest, entry.path)
        with (folder / f"{entry.path}{SUFFIX}").open("xb", buffering=0) as out:
            for piece in encrypt(_memory_filler(content), entry.size, key, context, os.urandom):
                out.write(piece)
            os.fsync(out.fileno())
    write_envelope(folder, wrapped(manifest, key, to))
    for name, raw in sidecars.items():
        (folder / name).write_bytes(raw)
    sync_folder(folder)


def wrapped(manifest: ModelManifest | KeyEnvelope, key: bytes, to: Iterable[Recipient]) -> KeyEnvelope:
    """A version's data key for each recipient."""
    empty = KeyEnvelope(manifest.model, manifest.version, {})
    return msgspec.structs.replace(
        empty, recipients={recipient.name: recipient.wrap(key, empty.context) for recipient in to}
    )


def write_envelope(folder: Path, envelope: KeyEnvelope) -> None:
    """Write or replace the wrapped keys of a version."""
    write_atomically(folder / ENVELOPE_FILE, msgspec.json.format(msgspec.json.encode(envelope)) + b"\n")


def read_sidecars(folder: PlainFolder, limit: int) -> dict[str, bytes]:
    """The manifest's envelope and, where there is one, the OpenSSF bundle."""
    sidecars = {MANIFEST_FILE: folder.manifest()}
    if BUNDLE_FILE in folder.names():
        sidecars[BUNDLE_FILE] = folder.read(BUNDLE_FILE, limit)
    return sidecars


def encrypted_size(manifest: ModelManifest) -> int:
    """Bytes of a version's ciphertext."""
    return sum(ciphertext_size(entry.size) for entry in manifest.files)


def filler(descriptor: int) -> Callable[[memoryview], int]:
    """A function that reads a file into buffers until each is full or the file ends."""

    def fill(buffer: memoryview) -> int:
        done = 0
        while done < len(buffer) and (count := os.readv(descriptor, [buffer[done:]])):
            done += count
        return done

    return fill


def _memory_filler(content: ImmutableBytes) -> Callable[[memoryview], int]:
    position = 0

    def fill(buffer: memoryview) -> int:
        nonlocal position
        count = content.read_into(buffer, position)
        position += count
        return count

    return fill


def _context(version: ModelManifest | KeyEnvelope, name: str) -> bytes:
    return f"{version.model}\x1f{version.version}\x1f{name}".encode()
