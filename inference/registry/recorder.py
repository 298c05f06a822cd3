"""Records each attempt as one event: done, refused or failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference.registry.atomic import locked
from inference.registry.events import Act, EventLog, Outcome, RegistryEvent
from inference.registry.manifest import ModelManifest
from inference.registry.refusal import ModelRefused

_ALARMING = frozenset({"budget", "signature", "altered", "sealed", "revoked"})
"""Refusals that hint at an attack more than at a slip."""


@dataclass(slots=True)
class Note:
    """The event of an act while it is under way."""

    model: str
    version: int
    reason: str = ""
    to: str = ""
    count: int = 0
    alarm: bool = False
    written: RegistryEvent | None = None

    def describe(self, manifest: ModelManifest) -> None:
        """Take over model, version and bytes of a manifest."""
        self.model = manifest.model
        self.version = manifest.version
        self.count = manifest.size


class Recorder:
    """Writes the record of one registry in the name of ``actor``; ``clock`` gives Unix milliseconds."""

    def __init__(self, home: Path, actor: str, clock: Callable[[], int]) -> None:
        self.log = EventLog(home / "events.jsonl")
        self._lock = home / ".lock"
        self._actor = actor
        self._clock = clock

    @contextmanager
    def attempt(self, act: Act, model: str = "", version: int = 0) -> Iterator[Note]:
        """Record the act when the body ends, unless it wrote the event itself."""
        note = Note(model, version)
        try:
            yield note
        except ModelRefused as fault:
            self._write(act, "refused", note, fault.code, alarm=fault.code in _ALARMING)
            raise
        except BaseException as fault:
            self._write(act, "failed", note, type(fault).__name__)
            raise
        if note.written is None:
            self._write(act, "done", note, note.reason, alarm=note.alarm)

    def write(self, act: Act, note: Note) -> RegistryEvent:
        """Record an act as done, before it is; for the holder of the lock."""
        note.written = self.log.append(self._event(act, "done", note, note.reason, note.alarm))
        return note.written

    def _write(self, act: Act, outcome: Outcome, note: Note, reason: str, alarm: bool = False) -> None:
        with locked(self._lock):
            self.log.append(self._event(act, outcome, note, reason, alarm))

    def _event(self, act: Act, outcome: Outcome, note: Note, reason: str, alarm: bool) -> RegistryEvent:
        return RegistryEvent(
            sequence=0,
            previous="",
            time=self._clock(),
            actor=self._actor,
            act=act,
            outcome=outcome,
            model=note.model[:128],
            version=note.version,
            reason=reason[:512],
            to=note.to,
            count=note.count if outcome == "done" else 0,
            alarm=alarm,
        )
