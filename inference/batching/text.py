"""Text pieces out of token bytes: whole characters only, stop strings held back. Pure."""

from __future__ import annotations

import codecs


class TextAssembler:
    """Turns bytes that arrive piece by piece into text that is safe to show.

    Bytes of an unfinished character wait; a suffix that may become a stop string waits; the text
    ends before the stop string that completes first. The concatenated output does not depend on
    how the bytes were cut. Bytes that are no UTF-8 become U+FFFD.
    """

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._pending = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """The text that may be shown after ``piece``; empty after a stop string was met."""
        return self._release(self._decoder.decode(piece))

    def flush(self) -> str:
        """The text that still waits, at the end of the answer."""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._pending = text + self._pending, ""
        return text

    def _release(self, arrived: str) -> str:
        if self.stopped:
            return ""
        text = self._pending + arrived
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if ends:
            self.stopped = True
            self._pending = ""
            # of the stops that complete first, the longest (smallest start) is cut away
            return text[: min(ends)[1]]
        keep = self._suffix_that_may_stop(text)
        self._pending = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _suffix_that_may_stop(self, text: str) -> int:
        for size in range(min(self._longest - 1, len(text)), 0, -1):
            suffix = text[-size:]
            if any(stop.startswith(suffix) for stop in self._stops):
                return size
        return 0
