"""The folder of one registry: the places of its versions, its state under the lock, and its freshness.

home/models/MODEL/VERSION/   manifest.dsse.json, model.sig, keys.json, FILE.sealed
home/state.json  home/revocations.json  home/events.jsonl  home/access.toml  home/.lock
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inference.registry.atomic import locked, write_atomically
from inference.registry.dsse import MAX_ENVELOPE_BYTES, Trust, sign
from inference.registry.keys import SigningKey
from inference.registry.listing import require_match
from inference.registry.manifest import ModelManifest, check_id
from inference.registry.opening import Freshness, read_manifest
from inference.registry.recorder import Recorder
from inference.registry.refusal import ModelRefused
from inference.registry.revocation import REVOCATION_TYPE, RevocationList, open_revocations
from inference.registry.source import PlainFolder
from inference.registry.state import State, begin_state, read_state, write_state

_REVOCATIONS = "revocations.json"


class RegistryFolder:
    """One registry as ``actor`` sees it; ``clock`` gives Unix milliseconds."""

    def __init__(self, home: Path, trust: Trust, *, actor: str, clock: Callable[[], int]) -> None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home = home
        self.trust = trust
        self.actor = actor
        self.clock = clock
        self.recorder = Recorder(home, actor, clock)
        with self.lock():
            begin_state(home)

    @property
    def now(self) -> int:
        """Unix seconds."""
        return self.clock() // 1000

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from changing the registry."""
        with locked(self.home / ".lock"):
            yield

    @contextmanager
    def changing(self) -> Iterator[State]:
        """The state, under the lock."""
        with self.lock():
            yield read_state(self.home)

    def state(self) -> State:
        """The state as of now. Raises ModelRefused."""
        return read_state(self.home)

    def write_state(self, state: State) -> None:
        """Replace the state; for the holder of the lock."""
        write_state(self.home, state)

    def place(self, model: str, version: int) -> Path:
        """The folder of a version, there or not. Raises ModelRefused for an id that is none."""
        return self.home / "models" / check_id(model) / str(int(version))

    def versions(self, model: str) -> list[int]:
        """Numbers of the versions of one model, rising."""
        folder = self.home / "models" / check_id(model)
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())

    def require(self, model: str, version: int) -> None:
        """Raise ModelRefused where a version is not here."""
        known = self.versions(model)
        if version not in known:
            listed = ", ".join(map(str, known)) or "none"
            raise ModelRefused(
                "unknown", f"{model}: no version {version} here; known: {listed}; see: sluice model list"
            )

    def manifest(self, model: str, version: int) -> tuple[ModelManifest, str]:
        """A version's manifest and its digest. Raises ModelRefused where it does not hold."""
        manifest, digest = read_manifest(PlainFolder(self.place(model, version)), self.trust)
        require_match(manifest, model, version)
        return manifest, digest

    def freshness(self, *, floors: bool = True) -> Freshness:
        """Limits of age here and now; without ``floors`` no version is too low. Raises ModelRefused."""
        pins = self.state().floors if floors else {}
        return Freshness(self.now, pins, self.revocations().pairs)

    def revocations(self) -> RevocationList:
        """The revocation list in force. Raises ModelRefused where it is lost or does not hold."""
        least = self.state().revocations
        try:
            raw = PlainFolder(self.home).read(_REVOCATIONS, MAX_ENVELOPE_BYTES)
        except FileNotFoundError:
            if least:
                raise ModelRefused("state", f"{self.home}: expected revocation list {least}; restore it") from None
            return RevocationList(0, 0)
        return open_revocations(raw, self.trust, least)

    def write_revocations(self, issue: RevocationList, keys: list[SigningKey]) -> None:
        """Sign and replace the revocation list. Raises ModelRefused where the keys are not those trusted."""
        envelope = sign(msgspec.json.encode(issue, order="sorted"), REVOCATION_TYPE, keys)
        open_revocations(envelope, self.trust, issue.sequence)
        write_atomically(self.home / _REVOCATIONS, envelope)
