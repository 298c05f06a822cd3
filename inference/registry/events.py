"""The record of acts on a registry, with actor and outcome: an append-only file of chained lines.

Each line holds the SHA-256 of the line before it, so a line that was changed or taken out of the middle shows. Lines
taken off the end show only against a copy elsewhere: publish them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from inference.registry.refusal import ModelRefused

Act = Literal["add", "verify", "load", "roll", "rollback", "revoke", "export", "grant", "pin"]
Outcome = Literal["done", "refused", "failed"]
FIRST = "0" * 64
MAX_LINE_BYTES = 64 << 10


class RegistryEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attempt. ``time`` in Unix milliseconds; ``count`` is bytes that left or were loaded.

    ``reason`` is the refusal's code or an operator's words; ``alarm`` asks for a person's eyes.
    """

    sequence: int
    previous: str
    time: int
    actor: str
    act: Act
    outcome: Outcome
    model: str = ""
    version: int = 0
    reason: str = ""
    to: str = ""
    count: int = 0
    alarm: bool = False


class EventLog:
    """The file. Appending needs the registry's lock, which the caller holds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: RegistryEvent) -> RegistryEvent:
        """Number, chain, write and fsync one event; gives it as written."""
        last, previous = self._last()
        placed = msgspec.structs.replace(event, sequence=last + 1, previous=previous)
        line = msgspec.json.encode(placed) + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return placed

    def read(self) -> Iterator[RegistryEvent]:
        """All events, oldest first. Raises ModelRefused where the chain is broken."""
        previous = FIRST
        for number, line in enumerate(self._lines(), 1):
            event = self._decode(line, number)
            if event.sequence != number or event.previous != previous:
                raise ModelRefused(
                    "state", f"{self._path}: line {number} does not follow the one before; lines were changed or lost"
                )
            yield event
            previous = _digest(line)

    def _lines(self) -> Iterator[bytes]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                yield line

    def _decode(self, line: bytes, number: int) -> RegistryEvent:
        try:
            return msgspec.json.decode(line, type=RegistryEvent)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ModelRefused(
                "state", f"{self._path}: line {number} is no event; restore the file from a copy"
            ) from None

    def _last(self) -> tuple[int, str]:
        """Sequence and digest of the last whole line; cuts off a line that a crash left unfinished."""
        if not self._path.exists():
            return 0, FIRST
        with self._path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = max(0, end - 2 * MAX_LINE_BYTES)
            file.seek(start)
            tail = file.read()
            whole = tail[: tail.rfind(b"\n") + 1]
            if len(whole) < len(tail):
                file.truncate(start + len(whole))
        if not whole:
            return 0, FIRST
        line = whole[whole[:-1].rfind(b"\n") + 1 :]
        return self._decode(line, 0).sequence, _digest(line)


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
