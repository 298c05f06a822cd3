"""A journal remembers what tables held, so that a batch which lost the race for the log can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_ABSENT: Any = object()
_TURN = 4096
"""Entries of a table that are looked at in one turn."""


class UndoJournal:
    """Every change of a table goes through here; between ``begin`` and ``commit`` it can be undone."""

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: list[tuple[dict[Any, Any], Any, Any] | Callable[[], None]] | None = None
        """Table, key and the value before, or a call that undoes a change; None while nothing is to be undone."""

    @property
    def begun(self) -> bool:
        """A change from now on can be undone."""
        return self._changes is not None

    def begin(self) -> None:
        self._changes = []

    def commit(self) -> None:
        self._changes = None

    def rollback(self) -> None:
        """Put every table back to where it was at ``begin``."""
        changes, self._changes = self._changes or [], None
        for change in reversed(changes):
            if callable(change):
                change()
                continue
            table, key, value = change
            if value is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = value

    def put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if self._changes is not None:
            self._changes.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def drop(self, table: dict[Any, Any], key: Any) -> None:
        if self._changes is not None and key in table:
            self._changes.append((table, key, table[key]))
        table.pop(key, None)

    def prune(self, table: dict[Any, Any], is_over: Callable[[Any], bool]) -> Iterator[None]:
        """Drop the values that are over, in turns; between two of them nothing may change the table."""
        over = []
        for nth, (key, value) in enumerate(table.items(), 1):
            if is_over(value):
                over.append(key)
            if not nth % _TURN:
                yield
        for nth, key in enumerate(over, 1):
            self.drop(table, key)
            if not nth % _TURN:
                yield

    def undo_by(self, undo: Callable[[], None]) -> None:
        """Journal a change outside a table, which ``undo`` takes back."""
        if self._changes is not None:
            self._changes.append(undo)
