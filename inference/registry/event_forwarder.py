"""Passes the record of a registry on to a log elsewhere, in order: at least once, and once where nothing breaks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.registry.atomic import write_atomically
from inference.registry.events import EventLog, RegistryEvent
from inference.registry.refusal import ModelRefused


class Forwarder:
    """Of one registry's folder; the number of the last event that was passed on lies beside the record."""

    def __init__(self, home: Path) -> None:
        self._log = EventLog(home / "events.jsonl")
        self._record = home / "events.jsonl"
        self._position = home / "forwarded"
        self._lock = home / ".forward.lock"
        self._seen = 0
        """Bytes of the record that hold nothing to be passed on; a registry without a record has none."""

    @contextmanager
    def pending(self) -> Iterator[list[RegistryEvent]]:
        """Events that were not passed on yet; they count as passed on when the body ends without a fault.

        Empty while another process passes on. Raises ModelRefused where the record was changed, OSError.
        """
        size = self._record.stat().st_size if self._record.exists() else 0
        descriptor = None if size == self._seen else self._try_lock()
        if descriptor is None:
            yield []
            return
        try:
            last = self._read_position()
            waiting = [event for event in self._log.read() if event.sequence > last]
            yield waiting
            if waiting:
                write_atomically(self._position, b"%d\n" % waiting[-1].sequence, 0o600)
            self._seen = size
        finally:
            os.close(descriptor)

    def _try_lock(self) -> int | None:
        descriptor = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _read_position(self) -> int:
        try:
            return int(self._position.read_text("ascii"))
        except FileNotFoundError:
            return 0
        except ValueError:
            raise ModelRefused(
                "state", f"{self._position}: expected a number; remove it, and all is passed on again"
            ) from None
