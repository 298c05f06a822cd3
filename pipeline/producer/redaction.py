"""Personal data taken out of messages on the client's side, before anything is sealed or leaves, with a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from detectors.pii import REDACT, Action, Actions, find, rewritten
from pipeline.errors import ConfigError

Redact = bool | Actions
"""False: messages leave as they are; True: every item is redacted; ``Actions``: by type."""


class RedactedSpan(msgspec.Struct, frozen=True):
    """One item: the index of its message, its range of code points there as it was written, what became of it."""

    message: int
    start: int
    end: int
    type: str
    action: Action


class Left(msgspec.Struct, frozen=True):
    """A report of the items found in one request and of what left in their place; holds no text."""

    redacted: bool = False
    """True where the messages were looked at."""
    places: tuple[RedactedSpan, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Items by type, in the order of the types' names."""
        kinds = sorted(place.type for place in self.places)
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


UNCHANGED = Left()


def checked(redact: Redact) -> Actions | None:
    """The actions that ``redact`` stands for, None for none. Raises ConfigError."""
    if isinstance(redact, bool):
        return REDACT if redact else None
    try:
        return redact.check()
    except ValueError as error:
        raise ConfigError(f"redact: {error}") from None


def taken_out(
    messages: Sequence[Mapping[str, str]], actions: Actions | None
) -> tuple[Sequence[Mapping[str, str]], Left]:
    """The messages as they may leave, and the report. Roles and fields other than ``content`` stay as they are."""
    if actions is None:
        return messages, UNCHANGED
    out: list[Mapping[str, str]] = []
    places: list[RedactedSpan] = []
    for index, message in enumerate(messages):
        content = message.get("content")
        items = find(content) if isinstance(content, str) else ()
        places += [RedactedSpan(index, item.start, item.end, item.type, actions.of(item.type)) for item in items]
        out.append({**message, "content": rewritten(content, items, actions)} if content and items else message)
    return out, Left(True, tuple(places))
