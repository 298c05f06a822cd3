"""The registry of one deployment: a folder of encrypted versions, its state, its revocation list and its record.

    home/models/MODEL/VERSION/   manifest.dsse.json, model.sig, keys.json, FILE.sealed
    home/state.json  home/revocations.json  home/events.jsonl  home/access.toml  home/.lock

Every act is recorded, done or refused. Bytes are recorded before they leave, so a crash counts too much, never too
little. Whoever may write this folder may lower pins; nobody can make it serve what was not signed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inference.registry.access import allow_export, read_access
from inference.registry.atomic import locked, sync_folder, write_atomically
from inference.registry.dsse import MAX_ENVELOPE_BYTES, Trust, sign
from inference.registry.encrypted import (
    SUFFIX,
    EncryptedFolder,
    read_envelope,
    read_sidecars,
    source_of,
    sweep,
    total_sealed_size,
    wrapped,
    write_envelope,
    write_sealed,
)
from inference.registry.events import Act, RegistryEvent
from inference.registry.keys import SigningKey
from inference.registry.listing import Broken, Held, held_of, require_place
from inference.registry.manifest import ModelManifest, check_id
from inference.registry.opening import Freshness, OpenModel, open_model, read_manifest
from inference.registry.recorder import Note, Recorder
from inference.registry.refusal import ModelRefused
from inference.registry.revocation import REVOCATION_TYPE, RevocationList, Revoked, extended, open_revocations
from inference.registry.rollout import check_shares, without
from inference.registry.source import PlainFolder
from inference.registry.state import State, begin_state, read_state, write_state
from inference.registry.wrapping import Holder, Recipient, unwrap_for


class ModelRegistry:
    """Acts on one registry in the name of ``actor``; ``clock`` gives Unix milliseconds."""

    def __init__(self, home: Path, trust: Trust, *, actor: str, clock: Callable[[], int]) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home, self._trust, self._actor, self._clock = home, trust, actor, clock
        self._recorder = Recorder(home, actor, clock)
        with locked(home / ".lock"):
            begin_state(home)

    def add(self, folder: Path, to: Sequence[Recipient], holder: Holder | None = None) -> ModelManifest:
        """Verify a signed folder, or what another registry exported for ``holder``, encrypt it for ``to`` and keep it.

        Both digests are compared; the version must be higher than any seen of this model. Raises Refused.
        """
        source = PlainFolder(folder) if holder is None else source_of(folder, lambda: holder)
        freshness = self.freshness(floors=False)
        with self._recorder.attempt("add") as note, open_model(source, self._trust, freshness, sha256=True) as opened:
            manifest = opened.manifest
            note.model, note.version, note.count = manifest.model, manifest.version, manifest.size
            place = self._place(manifest.model, manifest.version)
            staging = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True, mode=0o700)
            try:
                write_sealed(opened, read_sidecars(PlainFolder(folder), MAX_ENVELOPE_BYTES), staging, to)
                self._admit(manifest, staging, place)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            return manifest

    def held(self, model: str = "") -> list[Held | Broken]:
        """What is in the registry, by model and version. Raises Refused where its state does not hold."""
        state, freshness = read_state(self.home), self.freshness(floors=False)
        found: list[Held | Broken] = []
        for name in sorted(state.models):
            for version in self.versions(name) if model in ("", name) else ():
                try:
                    found.append(self._held(state, freshness, name, version))
                except ModelRefused as fault:
                    # such as one whose signer is trusted no more: the others are to be seen all the same
                    found.append(Broken(name, version, fault))
        return found

    def one(self, model: str, version: int) -> Held:
        """One version. Raises Refused where it is not here, or its manifest does not hold."""
        self._require(model, version)
        return self._held(read_state(self.home), self.freshness(floors=False), model, version)

    def versions(self, model: str) -> list[int]:
        """Numbers of the versions of one model, rising."""
        folder = self.home / "models" / check_id(model)
        found = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
        return sorted(found)

    def open(self, model: str, version: int, holder: Holder, act: Act = "load") -> OpenModel:
        """Decrypt and verify one version into sealed memory. Raises Refused. ``act`` verify compares SHA-256 too."""
        with self._recorder.attempt(act, model, version) as note:
            self._require(model, version)
            source = EncryptedFolder(self._place(model, version), holder)
            opened = open_model(source, self._trust, self.freshness(floors=act == "load"), sha256=act == "verify")
            try:
                require_place(opened.manifest, model, version)
            except ModelRefused:
                opened.close()
                raise
            note.count, note.to = opened.manifest.size, holder.name
            return opened

    def open_folder(self, folder: Path) -> OpenModel:
        """Verify a signed folder outside the registry and pin its version: an older one is refused from then on."""
        with self._recorder.attempt("load") as note:
            opened = open_model(PlainFolder(folder), self._trust, self.freshness())
            manifest = opened.manifest
            note.model, note.version, note.count = manifest.model, manifest.version, manifest.size
            with self._changing() as state:
                held = state.of(manifest.model)
                if manifest.version > held.floor:
                    highest = max(held.highest, manifest.version)
                    pinned = msgspec.structs.replace(held, floor=manifest.version, highest=highest)
                    write_state(self.home, state.with_model(manifest.model, pinned))
            return opened

    def roll(self, model: str, shares: Mapping[int, int]) -> None:
        """Give versions their shares of traffic (basis points, 10,000 in all). Raises Refused."""
        with self._recorder.attempt("roll", model, max(shares, default=0)) as note, self._changing() as state:
            note.reason = ",".join(f"{version}={share}" for version, share in sorted(shares.items()))
            check_shares(shares)
            freshness = self.freshness()
            for version in shares:
                self._require(model, version)
                freshness.check(self._manifest(model, version)[0])
            held = state.of(model)
            served = msgspec.structs.replace(held, shares=dict(shares), floor=min(shares), earlier=held.shares)
            write_state(self.home, state.with_model(model, served))

    def rollback(self, model: str) -> dict[int, int]:
        """Back to the shares before the last roll-out, the one act that lowers a pin; gives the shares in force."""
        with self._recorder.attempt("rollback", model) as note, self._changing() as state:
            held = state.of(model)
            back = held.earlier
            for name, version in self._revocations().pairs:
                back = without(back, version) if name == model else back
            if not back:
                raise ModelRefused(
                    "rollout", f"{model}: expected an earlier roll-out to go back to, got none; use roll"
                )
            note.version, note.reason = max(back), ",".join(f"{v}={share}" for v, share in sorted(back.items()))
            freshness = self.freshness(floors=False)
            for version in back:
                self._require(model, version)
                # workers would not take on what has expired meanwhile, and the caller would think they had
                freshness.check(self._manifest(model, version)[0])
            served = msgspec.structs.replace(held, shares=back, floor=min(back), earlier={})
            write_state(self.home, state.with_model(model, served))
            return dict(back)

    def revoke(self, model: str, version: int, reason: str, keys: Sequence[SigningKey]) -> RevocationList:
        """Issue the next revocation list; the version's traffic goes to the latest other. Raises Refused."""
        with self._recorder.attempt("revoke", model, version) as note, self._changing() as state:
            note.reason = reason[:512]
            check_id(model)
            issued = self._clock() // 1000
            listed = extended(self._revocations(), Revoked(model, version, reason[:512]), issued)
            envelope = sign(msgspec.json.encode(listed, order="sorted"), REVOCATION_TYPE, keys)
            open_revocations(envelope, self._trust, listed.sequence)
            write_atomically(self.home / "revocations.json", envelope)
            held = state.of(model)
            shares = without(held.shares, version)
            changed = msgspec.structs.replace(held, shares=shares, earlier=without(held.earlier, version))
            state = msgspec.structs.replace(state, revocations=listed.sequence)
            write_state(self.home, state.with_model(model, changed) if model in state.models else state)
            return listed

    def export(self, model: str, version: int, holder: Holder, to: Recipient, out: Path) -> RegistryEvent:
        """Copy one version's ciphertext to ``out``, its data key wrapped for ``to`` alone. Raises Refused.

        Needs the role ``model:export`` and what is left of the day's bytes; gives the record.
        """
        with self._recorder.attempt("export", model, version) as note:
            note.to = to.name
            if out.exists():
                # asked before the bytes are charged
                raise FileExistsError(errno.EEXIST, "exists; name a folder that is to be made", str(out))
            self._require(model, version)
            manifest, _ = self._manifest(model, version)
            self.freshness(floors=False).check(manifest)
            place = PlainFolder(self._place(model, version))
            envelope = read_envelope(place)
            key = unwrap_for(holder, envelope.recipients, envelope.context)
            record = self._allow(note, total_sealed_size(manifest))
            out.mkdir(parents=True, mode=0o700)
            for entry in manifest.files:
                name = f"{entry.path}{SUFFIX}"
                shutil.copyfile(place.folder / name, out / name, follow_symlinks=False)
            for name, raw in read_sidecars(place, MAX_ENVELOPE_BYTES).items():
                (out / name).write_bytes(raw)
            write_envelope(out, wrapped(envelope, key, [to]))
            return record

    def grant(self, model: str, version: int, holder: Holder, to: Recipient) -> None:
        """Wrap one version's data key for one more recipient, where it is not yet. Raises Refused."""
        place = self._place(model, version)
        if to.name in read_envelope(PlainFolder(place)).recipients:
            return
        with self._recorder.attempt("grant", model, version) as note, locked(self.home / ".lock"):
            note.to = to.name
            envelope = read_envelope(PlainFolder(place))
            key = unwrap_for(holder, envelope.recipients, envelope.context)
            more = wrapped(envelope, key, [to]).recipients
            write_envelope(place, msgspec.structs.replace(envelope, recipients=envelope.recipients | more))

    def shares(self, model: str) -> dict[int, int]:
        """What ``rollout.choose`` needs."""
        return dict(read_state(self.home).of(model).shares)

    def revoked(self, model: str) -> frozenset[int]:
        """Versions that must not be served, whoever has them loaded. Raises Refused."""
        return frozenset(version for name, version in self._revocations().pairs if name == model)

    def events(self) -> list[RegistryEvent]:
        """The whole record, oldest first. Raises Refused where its chain is broken."""
        return list(self._recorder.log.read())

    def _allow(self, note: Note, count: int) -> RegistryEvent:
        """Check role and budget and record the export in one step, so two at once cannot share what is left."""
        with locked(self.home / ".lock"):
            access = read_access(self.home / "access.toml")
            allowance = allow_export(access, self._actor, count, self._clock(), self._recorder.log.read())
            note.count, note.alarm = count, allowance.alarm
            return self._recorder.write("export", note)

    def _admit(self, manifest: ModelManifest, staging: Path, place: Path) -> None:
        with self._changing() as state:
            held = state.of(manifest.model)
            # the highest may be known from a folder alone, and be added now
            if manifest.version < held.highest or (manifest.version == held.highest and place.exists()):
                raise ModelRefused(
                    "rolled_back",
                    f"{manifest.model}: expected a version above {held.highest}, got {manifest.version}; sign it "
                    "under the next number",
                )
            # a crash after the rename below leaves a version that the state does not know
            shutil.rmtree(place, ignore_errors=True)
            staging.rename(place)
            sync_folder(place.parent)
            raised = msgspec.structs.replace(held, highest=manifest.version)
            write_state(self.home, state.with_model(manifest.model, raised))
            sweep(place.parent, self._clock() // 1000)

    @contextmanager
    def _changing(self) -> Iterator[State]:
        with locked(self.home / ".lock"):
            yield read_state(self.home)

    def freshness(self, *, floors: bool = True) -> Freshness:
        """What is too old here and now; without ``floors`` no version is too low. Raises Refused."""
        pins = read_state(self.home).floors if floors else {}
        return Freshness(self._clock() // 1000, pins, self._revocations().pairs)

    def _revocations(self) -> RevocationList:
        least = read_state(self.home).revocations
        try:
            raw = PlainFolder(self.home).read("revocations.json", MAX_ENVELOPE_BYTES)
        except FileNotFoundError:
            if least:
                raise ModelRefused("state", f"{self.home}: expected revocation list {least}; restore it") from None
            return RevocationList(0, 0)
        return open_revocations(raw, self._trust, least)

    def _place(self, model: str, version: int) -> Path:
        return self.home / "models" / check_id(model) / str(int(version))

    def _require(self, model: str, version: int) -> None:
        known = self.versions(model)
        if version not in known:
            listed = ", ".join(map(str, known)) or "none"
            raise ModelRefused(
                "unknown", f"{model}: no version {version} here; known: {listed}; see: sluice model list"
            )

    def _manifest(self, model: str, version: int) -> tuple[ModelManifest, str]:
        manifest, digest = read_manifest(PlainFolder(self._place(model, version)), self._trust)
        require_place(manifest, model, version)
        return manifest, digest

    def _held(self, state: State, freshness: Freshness, model: str, version: int) -> Held:
        return held_of(*self._manifest(model, version), state.of(model).shares.get(version, 0), freshness)
