"""The manifest of one model version: its files, its parent, its expiry.

Canonical form: JSON with sorted keys, no spaces, ASCII without escapes, integers alone (a subset of RFC 8785), so one
manifest has one spelling. Signed bytes are kept and compared, never rebuilt.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from inference.registry.refusal import ModelRefused

PAYLOAD_TYPE = "application/vnd.sluice.model-manifest+json"
MAX_FILES = 256
MAX_VERSION = 2**31 - 1
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
"""A file in the model's one folder, or a model id: no separators, so nothing can point elsewhere."""
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Version = Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
Licence = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .()+-]{0,127}\Z")]
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: its name, bytes, and both digests in hex."""

    path: Name
    size: Count
    sha256: Hash
    blake3: Hash


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base model of an adapter or a fine-tuned model; ``manifest`` is the SHA-256 of its signed manifest."""

    model: Name
    version: Version
    manifest: Hash


class ModelManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sluice/model-manifest/1"):
    """One version of one model. Times are Unix seconds; ``licence`` is an SPDX expression."""

    model: Name
    version: Version
    kind: Literal["base", "adapter"]
    licence: Licence
    issued: Count
    expires: Count
    files: tuple[FileEntry, ...]
    parent: Parent | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)


def encode_manifest(manifest: ModelManifest) -> bytes:
    """Canonical bytes. Raises ModelRefused where the manifest breaks a rule."""
    raw = msgspec.json.encode(manifest, order="sorted")
    decode_manifest(raw, "correct it and sign")
    return raw


def decode_manifest(raw: bytes, advice: str = "sign the model again with this version of sluice") -> ModelManifest:
    """The manifest of signed bytes. Raises ModelRefused."""
    try:
        manifest = msgspec.json.decode(raw, type=ModelManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ModelRefused("manifest", f"manifest: {fault}; {advice}") from None
    if msgspec.json.encode(manifest, order="sorted") != raw:
        raise ModelRefused("manifest", "manifest: expected its canonical form (sorted keys, no spaces); sign it again")
    names = [entry.path for entry in manifest.files]
    if not names or len(names) > MAX_FILES or names != sorted(set(names)):
        raise ModelRefused(
            "manifest", f"manifest: expected 1 to {MAX_FILES} files, each once, sorted by name, got {len(names)}"
        )
    if len({name.lower() for name in names}) != len(names):
        raise ModelRefused("manifest", "manifest: expected names that differ in more than case")
    if manifest.expires <= manifest.issued:
        raise ModelRefused(
            "manifest",
            f"manifest: expected an expiry after the time of issue {manifest.issued}, got {manifest.expires}",
        )
    if manifest.kind == "adapter" and manifest.parent is None:
        raise ModelRefused("manifest", "manifest: expected the parent of an adapter, got none; name its base model")
    return manifest


def check_id(text: str) -> str:
    """A model id as given by a person. Raises ModelRefused."""
    if not _ID.fullmatch(text):
        raise ModelRefused(
            "unknown", f"model id: expected 1 to 128 letters, digits, dots, dashes and underscores, got {text[:64]!r}"
        )
    return text
