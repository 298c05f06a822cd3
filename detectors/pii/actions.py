"""Actions on items that were found: they are redacted, masked, hashed or replaced by a token, by type.

`hash` and `token` are keyed and deterministic, so equal items stay equal under one key, however they are written.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

from detectors.personal import TYPES
from detectors.pii.item import SECRET, PiiItem, shown
from detectors.pii.scan import items
from detectors.pii.tokens import MIN_KEY, digest, token

Action = Literal["redact", "mask", "hash", "token", "keep"]
ACTIONS: tuple[Action, ...] = ("redact", "mask", "hash", "token", "keep")
_SHOWN = 4
"""Last characters that a mask leaves of a number at least twice as long, as receipts show a card."""
_MASKED_WHOLE = frozenset({SECRET, "PERSON", "ADDRESS", "DATE_OF_BIRTH", "EMAIL", "IP", "WECHAT"})


class Actions(NamedTuple):
    """`default` for every type that `by_type` does not name; `key` of MIN_KEY bytes or more where one is keyed."""

    default: Action = "redact"
    by_type: Mapping[str, Action] = MappingProxyType({})
    key: bytes = b""

    def of(self, kind: str) -> Action:
        """The action on items of type `kind`."""
        return self.by_type.get(kind, self.default)

    def check(self) -> Actions:
        """Itself. Raises ValueError where an action or a type is unknown or a keyed action has no key."""
        chosen = {self.default, *self.by_type.values()}
        if unknown := chosen.difference(ACTIONS):
            raise ValueError(f"expected actions of {', '.join(ACTIONS)}, got {', '.join(sorted(unknown))}")
        if strange := set(self.by_type) - TYPES:
            known = ", ".join(sorted(TYPES))
            raise ValueError(f"expected types of personal data, got {', '.join(sorted(strange))}; use {known}")
        if chosen & {"hash", "token"} and len(self.key) < MIN_KEY:
            raise ValueError(f"expected a key of at least {MIN_KEY} bytes, got {len(self.key)}")
        return self


REDACT = Actions()


def redact(text: str, off: Container[str] = ()) -> tuple[str, tuple[PiiItem, ...]]:
    """The text with every structured item replaced by `[TYPE]`, and the items with offsets of the original text.

    Items of the types in `off` stay as they are and are not told.
    """
    view = shown(text)
    found = tuple(view.item(item) for item in items(view.text) if item.type not in off)
    return rewritten(text, found), found


def rewritten(text: str, found: Sequence[PiiItem], actions: Actions = REDACT) -> str:
    """The text with each item of `found`, which are in order and do not overlap, replaced as `actions` say."""
    if not found:
        return text
    out: list[str] = []
    done = 0
    for item in found:
        out += (text[done : item.start], _replaced(text[item.start : item.end], item.type, actions))
        done = item.end
    out.append(text[done:])
    return "".join(out)


def _replaced(value: str, kind: str, actions: Actions) -> str:
    match actions.of(kind):
        case "redact":
            return f"[{kind}]"
        case "mask":
            return _masked(value, kind)
        case "hash":
            return f"[{kind}:{digest(value, kind, actions.key).hex()[:16]}]"
        case "token":
            return token(value, kind, actions.key)
        case "keep":
            return value


def _masked(value: str, kind: str) -> str:
    """Letters and digits as `*`, signs as they are; the last ones of a number show."""
    signs = sum(not char.isalnum() for char in value)
    shown = 0 if kind in _MASKED_WHOLE or len(value) - signs < 2 * _SHOWN else _SHOWN
    out: list[str] = []
    for char in reversed(value):
        show = not char.isalnum() or shown > 0
        shown -= char.isalnum()
        out.append(char if show else "*")
    return "".join(reversed(out))
