"""Redaction of structured items in a text that arrives in pieces.

However a text is cut into pieces, what the stream gives back, joined, is what `redact` makes of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Container

from detectors.pii.item import shown
from detectors.pii.scan import WORD, scan
from detectors.pii.shape import CONTEXT
from detectors.pii.shapes import MAX_ITEM, MAX_SPACED, PROVINCES

HOLD_BACK = MAX_ITEM
"""Most code points that a stream may keep waiting, those that show nothing aside (four for each at most): 96, as long
as a run without a space may be a secret, 64 of words; ordinary text waits for the end of its last word only."""
_WORD = re.compile(f"[{WORD}]*")
_DIGIT = re.compile("[0-9]")
_OPEN = re.compile(f"(?:(?<![A-Za-z0-9])[A-Z]{{2}}|[{PROVINCES}][A-Z])\\Z")


class StreamRedactor:
    """Redacts a text that arrives in pieces. Holds back what may still grow into an item, HOLD_BACK at most."""

    def __init__(self, off: Container[str] = ()) -> None:
        """Items of the types in `off` pass as they are."""
        self._off = off
        self.counts: dict[str, int] = {}
        """Items redacted so far, by type."""
        self.spans: dict[str, tuple[int, int]] = {}
        """Places of the first of each type; none are kept."""
        self._kept = ""
        self._pending = ""
        self._tail: re.Pattern[str] | None = None
        self._passes = False
        """True where the item that goes on is of a type that is off."""

    def push(self, text: str) -> str:
        """The text that is safe to show once `text` has arrived."""
        self._pending += text
        return self._drain(final=False)

    def flush(self) -> str:
        """The rest, when nothing more will come."""
        return self._drain(final=True)

    def _drain(self, *, final: bool) -> str:
        skipped = "" if self._tail is None else self._skip(self._tail, final)
        out = [skipped] if self._passes else []
        if self._tail is not None:
            return "".join(out)
        text = self._kept + self._pending
        view, done = shown(text), len(self._kept)
        read, read_to = view.text, view.first_at(done)
        cut = len(read) if final else _safe(read, read_to)
        for item, tail in scan(read, read_to):
            if item.start >= cut:
                break
            self._passes = item.type in self._off
            end = view.behind(item.end)
            if self._passes:
                out.append(text[done:end])
            else:
                out += (text[done : view.place(item.start)], f"[{item.type}]")
                self.counts[item.type] = self.counts.get(item.type, 0) + 1
            read_to, done = item.end, end
            self._tail = tail if not final and read[read_to:] in ("", ".") else None
        if read_to < cut or final:
            read_to = cut
            out.append(text[done : view.place(read_to)])
            done = max(done, view.place(read_to))
        self._kept, self._pending = text[view.place(max(0, read_to - CONTEXT)) : done], text[done:]
        return "".join(out)

    def _skip(self, tail: re.Pattern[str], final: bool) -> str:
        """Take away what still belongs to an item that was found, and give it back; `_tail` is None once it is over."""
        view = shown(self._pending)
        match = tail.match(view.text)
        end = match.end() if match else 0
        done = view.behind(end) if end else 0
        skipped = self._pending[:done]
        self._kept = (self._kept + skipped)[-CONTEXT:]
        self._pending = self._pending[done:]
        if final or view.text[end:] not in ("", "."):
            self._tail = None
        return skipped


def _safe(text: str, low: int) -> int:
    """The end of what no later text can change: before the last word, and before words it may belong to.

    Only a word with a digit, two capitals or a plate's province can begin an item that goes on after a space, and
    no word of small letters lies inside an item (`shapes`).
    """
    cut = word = _word_start(text, max(low, len(text) - MAX_ITEM), len(text))
    while word - 1 > max(low, len(text) - MAX_SPACED) and text[word - 1] == " ":
        start = _word_start(text, max(low, len(text) - MAX_SPACED), word - 1)
        before = text[start : word - 1]
        if not before:
            break
        if _DIGIT.search(before) or _OPEN.search(before):
            cut = start
        elif not before.isupper():
            break
        word = start
    return cut


def _word_start(text: str, low: int, end: int) -> int:
    """The beginning of the run of characters of items which ends at `end`; not before `low`."""
    run = _WORD.match(text[low:end][::-1])
    return end - (run.end() if run else 0)
