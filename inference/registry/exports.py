"""Versions that leave the registry, and workers that are let in: both wrap a data key for one more recipient."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import msgspec

from inference.registry.access import allow_export, read_access
from inference.registry.dsse import MAX_ENVELOPE_BYTES
from inference.registry.encrypted import (
    SUFFIX,
    encrypted_size,
    read_envelope,
    read_sidecars,
    wrapped,
    write_envelope,
)
from inference.registry.events import RegistryEvent
from inference.registry.folder import RegistryFolder
from inference.registry.recorder import Note
from inference.registry.source import PlainFolder
from inference.registry.wrapping import Holder, Recipient, unwrap_for


class Exports:
    """Exports and grants of one registry.

    Bytes are recorded before they leave, so a crash counts too much, never too little.
    """

    def __init__(self, folder: RegistryFolder) -> None:
        self._folder = folder

    def export(self, model: str, version: int, holder: Holder, to: Recipient, out: Path) -> RegistryEvent:
        """Copy one version's ciphertext to ``out``, its data key wrapped for ``to`` alone. Raises ModelRefused.

        Needs the role ``model:export`` and enough of the day's bytes; gives the record.
        """
        folder = self._folder
        with folder.recorder.attempt("export", model, version) as note:
            note.to = to.name
            if out.exists():
                # asked before the bytes are charged
                raise FileExistsError(errno.EEXIST, "exists; name a folder that is to be made", str(out))
            folder.require(model, version)
            manifest, _ = folder.manifest(model, version)
            folder.freshness(floors=False).check(manifest)
            source = PlainFolder(folder.place(model, version))
            envelope = read_envelope(source)
            key = unwrap_for(holder, envelope.recipients, envelope.context)
            record = self._charge(note, encrypted_size(manifest))
            out.mkdir(parents=True, mode=0o700)
            for entry in manifest.files:
                name = f"{entry.path}{SUFFIX}"
                shutil.copyfile(source.folder / name, out / name, follow_symlinks=False)
            for name, raw in read_sidecars(source, MAX_ENVELOPE_BYTES).items():
                (out / name).write_bytes(raw)
            write_envelope(out, wrapped(envelope, key, [to]))
            return record

    def grant(self, model: str, version: int, holder: Holder, to: Recipient) -> None:
        """Wrap one version's data key for one more recipient, where it is not yet. Raises ModelRefused."""
        folder = self._folder
        place = folder.place(model, version)
        if to.name in read_envelope(PlainFolder(place)).recipients:
            return
        with folder.recorder.attempt("grant", model, version) as note, folder.lock():
            note.to = to.name
            envelope = read_envelope(PlainFolder(place))
            key = unwrap_for(holder, envelope.recipients, envelope.context)
            added = wrapped(envelope, key, [to]).recipients
            write_envelope(place, msgspec.structs.replace(envelope, recipients=envelope.recipients | added))

    def recipients(self, model: str, version: int) -> dict[str, str]:
        """Give a version's data key as it is wrapped for each recipient, by name. Raises ModelRefused."""
        return read_envelope(PlainFolder(self._folder.place(model, version))).recipients

    def rewrap(self, model: str, version: int, holder: Holder, to: Recipient) -> None:
        """Wrap one version's data key anew for one that has it, such as under a newer key. Raises ModelRefused."""
        folder = self._folder
        place = folder.place(model, version)
        with folder.recorder.attempt("grant", model, version) as note, folder.lock():
            note.to = to.name
            envelope = read_envelope(PlainFolder(place))
            key = unwrap_for(holder, envelope.recipients, envelope.context)
            fresh = wrapped(envelope, key, [to]).recipients
            write_envelope(place, msgspec.structs.replace(envelope, recipients=envelope.recipients | fresh))

    def _charge(self, note: Note, count: int) -> RegistryEvent:
        """Check role and budget and record the export in one step, so two at once cannot share the rest."""
        folder = self._folder
        with folder.lock():
            access = read_access(folder.home / "access.toml")
            events = folder.recorder.log.read()
            allowance = allow_export(access, folder.actor, count, folder.clock(), events)
            note.count = count
            note.alarm = allowance.alarm
            return folder.recorder.write("export", note)
