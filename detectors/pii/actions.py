"""What becomes of items that were found."""

from __future__ import annotations

from detectors.pii.item import Item, plain
from detectors.pii.scan import items, may_hold


def redact(text: str) -> tuple[str, tuple[Item, ...]]:
    """The text with every structured item replaced by `[TYPE]`, and the items with offsets of the original text."""
    found = tuple(items(plain(text))) if may_hold(text) else ()
    out: list[str] = []
    at = 0
    for item in found:
        out += (text[at : item.start], f"[{item.type}]")
        at = item.end
    out.append(text[at:])
    return "".join(out), found
