"""Redaction of protected runs in a text that arrives in pieces.

However a text is cut into pieces, what the stream gives back, joined, is the text with every stretch of overlapping
protected runs replaced by a marker. Letters wait only while all that was said since could still become a run: of
ordinary text ``LEAD`` - 1, ``run`` - 1 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from detectors.verbatim.index import LEAD
from detectors.verbatim.letters import MAX_GAP, letters


class Runs(Protocol):
    """The protected runs, as ``ProtectedIndex`` tells them."""

    run: int

    def leads(self, codes: Sequence[int]) -> bool: ...
    def owner(self, codes: Sequence[int]) -> str | None: ...


MARKER = "[protected]"
"""Stands for a protected passage."""


class VerbatimRedactor:
    """Takes protected runs out of a text that arrives in pieces. Places count code points of that text."""

    def __init__(self, index: Runs) -> None:
        self._index = index
        self.counts: dict[str, int] = {}
        """Passages taken out so far, by corpus."""
        self.spans: dict[str, tuple[int, int]] = {}
        """The first passage of each corpus."""
        self._text, self._base = "", 0
        """What has not left yet, and where it begins."""
        self._arrived = 0
        self._codes: list[int] = []
        """Letters that may still belong to a run, and where they stand."""
        self._places: list[int] = []
        self._gap = 0
        self._passage = ""
        """The corpus of the passage that was taken out last; a run that shares letters with it goes on with it."""

    def push(self, text: str) -> str:
        """The text that is safe to show once ``text`` has arrived."""
        self._text += text
        out: list[str] = []
        for character in text:
            read = letters(character)
            if read:
                self._gap = 0
                out.extend(map(self._letter, read))
            else:
                self._gap += 1
                if self._gap > MAX_GAP:
                    self._forget()
            self._arrived += 1
        out.append(self._let(self._places[0] if self._places else self._arrived))
        return "".join(out)

    def flush(self) -> str:
        """The rest, when nothing more will come."""
        self._forget()
        return self._let(self._arrived)

    def _forget(self) -> None:
        self._codes.clear()
        self._places.clear()
        self._passage = ""

    def _letter(self, code: int) -> str:
        self._codes.append(code)
        self._places.append(self._arrived)
        run, out = self._index.run, ""
        if len(self._codes) >= LEAD and not self._index.leads(self._codes[-LEAD:]):
            self._keep(LEAD - 1)
        elif len(self._codes) == run:
            owner = self._index.owner(self._codes)
            if owner is not None:
                out = self._take_out(owner)
            self._keep(run - 1)
        return out

    def _keep(self, count: int) -> None:
        del self._codes[:-count], self._places[:-count]

    def _take_out(self, owner: str) -> str:
        """The text before the passage that ends here, and a marker unless it goes on with one taken out before."""
        start, end = self._places[0], self._arrived + 1
        if self._passage and start < self._base:
            owner, out = self._passage, ""
            first = self.spans[owner]
            if self.counts[owner] == 1:
                self.spans[owner] = first[0], end
        else:
            out = self._let(start) + MARKER
            self.counts[owner] = self.counts.get(owner, 0) + 1
            self.spans.setdefault(owner, (start, end))
            self._passage = owner
        self._text, self._base = self._text[max(0, end - self._base) :], max(end, self._base)
        return out

    def _let(self, until: int) -> str:
        """The text up to a place, which then has left."""
        size = max(0, until - self._base)
        out, self._text = self._text[:size], self._text[size:]
        self._base += size
        return out
