"""Signs a model folder: reads it once, writes the manifest and, with an ECDSA key, the OpenSSF bundle beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference.registry import oms
from inference.registry.atomic import write_atomically
from inference.registry.content import BUNDLE_FILE, MANIFEST_FILE, SIDECARS, check_contents, check_name
from inference.registry.dsse import sign
from inference.registry.keys import ECDSA, SigningKey
from inference.registry.manifest import PAYLOAD_TYPE, FileEntry, ModelManifest, Parent, encode_manifest
from inference.registry.memory import ImmutableBytes
from inference.registry.refusal import ModelRefused
from inference.registry.source import PlainFolder

SHIPPED = Path(__file__).parents[1] / "shipped" / "glossary"
RELEASE_KEYS = SHIPPED.parent / "release.pem"
"""Public keys that sign what ships with the project. The private ones are not in the tree."""


@dataclass(frozen=True, slots=True)
class ReleaseTerms:
    """Fields of a manifest that a signer chooses. Times in Unix seconds; ``licence`` is an SPDX expression."""

    model: str
    version: int
    licence: str
    issued: int
    expires: int
    kind: Literal["base", "adapter"] = "base"
    parent: Parent | None = None


def sign_folder(folder: Path, keys: Sequence[SigningKey], terms: ReleaseTerms) -> ModelManifest:
    """Sign the files of ``folder`` as one version. Raises ModelRefused, OSError.

    Every key but ECDSA signs the manifest. Signatures that were there are replaced.
    """
    signers = [key for key in keys if key.public.algorithm != ECDSA]
    if not signers:
        raise ModelRefused("key", "sign: expected at least one key that signs manifests, got none: sluice model keygen")
    entries = _entries(PlainFolder(folder))
    manifest = ModelManifest(
        model=terms.model,
        version=terms.version,
        kind=terms.kind,
        licence=terms.licence,
        issued=terms.issued,
        expires=terms.expires,
        files=entries,
        parent=terms.parent,
    )
    envelope = sign(encode_manifest(manifest), PAYLOAD_TYPE, signers)
    (folder / BUNDLE_FILE).unlink(missing_ok=True)
    write_atomically(folder / MANIFEST_FILE, envelope)
    for key in keys:
        if key.public.algorithm == ECDSA:
            digests = {entry.path: entry.sha256 for entry in entries}
            digests[MANIFEST_FILE] = hashlib.sha256(envelope).hexdigest()
            write_atomically(folder / BUNDLE_FILE, oms.bundle(terms.model, digests, key))
    return manifest


def _entries(source: PlainFolder) -> tuple[FileEntry, ...]:
    names = [name for name in source.names() if name not in SIDECARS]
    entries = []
    with ExitStack() as memory:
        files = {}
        for name in names:
            check_name(name)
            content = files[name] = memory.enter_context(ImmutableBytes(name))
            digests = source.copy(name, source.size(name), content, sha256=True)
            entries.append(FileEntry(name, digests.size, digests.sha256, digests.blake3))
        check_contents(files)
    return tuple(entries)
