"""Redaction of names, addresses and other items that the words around them tell, in a text that arrives in pieces.

Such an item can be judged only once those words have come, and may go on in the next sentence (`Mary J. Blige`). So a
sentence leaves when the one after it has ended, HOLD_BACK_SENTENCES code points later at most. Decisions are taken at
places that the text itself names, ends of sentences and every so many code points without one: however it is cut into
pieces, the same comes out. What leaves passes through `StreamRedactor`, for items that are longer than all of that.
"""

from __future__ import annotations

import re
from collections.abc import Container

from detectors.pii.contextual import find
from detectors.pii.stream import HOLD_BACK, StreamRedactor

LONGEST = 512
"""Code points after which a decision is taken without the end of a sentence; then half of them may leave."""
HOLD_BACK_SENTENCES = LONGEST + HOLD_BACK
"""Most code points that wait, what `StreamRedactor` keeps included."""
KEPT = 128
"""Code points of what has left that are read again, for the words before an item."""
_END = re.compile(r"[。！？；\n]|[.!?…](?=\s)")


class SentenceRedactor:
    """Redacts all of personal data in a text that arrives in pieces."""

    def __init__(self, off: Container[str] = ()) -> None:
        """Items of the types in `off` pass as they are."""
        self._off = off
        self.spans: dict[str, tuple[int, int]] = {}
        """Places of the first of each type; none are kept."""
        self._structured = StreamRedactor(off)
        self._told: dict[str, int] = {}
        self._kept = ""
        self._pending = ""
        self._ended = 0
        """Where in what is pending the last sentence that is over ends."""

    @property
    def counts(self) -> dict[str, int]:
        """Items redacted so far, by type."""
        found = dict(self._structured.counts)
        for kind, count in self._told.items():
            found[kind] = found.get(kind, 0) + count
        return found

    def push(self, text: str) -> str:
        """The text that is safe to show once `text` has arrived."""
        out: list[str] = []
        for first in range(0, len(text), LONGEST):
            self._pending += text[first : first + LONGEST]
            while (end := self._next()) is not None:
                forced = end == LONGEST
                limit = max(self._ended, LONGEST // 2) if forced else self._ended
                out.append(self._leave(end, limit, forced=forced))
        return self._structured.push("".join(out))

    def flush(self) -> str:
        """The rest, when nothing more will come."""
        rest = self._leave(len(self._pending), len(self._pending), forced=True)
        return self._structured.push(rest) + self._structured.flush()

    def _next(self) -> int | None:
        """The next place to decide at, in what is pending; None where it has not come yet."""
        # the sign that ends a sentence and the blank behind it count as come together
        found = _END.search(self._pending[: LONGEST + 1], self._ended)
        if found is not None and found.end() < LONGEST:
            return found.end()
        return LONGEST if len(self._pending) > LONGEST else None

    def _leave(self, end: int, limit: int, *, forced: bool = False) -> str:
        """The text that may leave of all before `limit`, judged by what has come until `end`; items are not torn."""
        first = len(self._kept)
        text = self._kept + self._pending[:end]
        left, cut = first, first + limit
        out: list[str] = []
        for item in find(text):
            if item.type in self._off:
                continue
            start = max(item.start, first)
            if item.end <= left:
                continue
            if start >= cut:
                break
            if item.end > cut and not (forced and start == left):
                cut = start
                break
            out += (text[left:start], f"[{item.type}]")
            left, cut = item.end, max(cut, item.end)
            self._told[item.type] = self._told.get(item.type, 0) + 1
        out.append(text[left:cut])
        self._kept, self._pending = text[max(0, cut - KEPT) : cut], self._pending[cut - first :]
        self._ended = max(0, end - (cut - first))
        return "".join(out)
