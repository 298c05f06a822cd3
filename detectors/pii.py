"""Personal data: recorded as findings in prompts, redacted in text and in streams of text.

`redact` and `StreamRedactor` agree exactly: however a text is cut into pieces, what the stream gives back, joined, is
what `redact` makes of the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice

from detectors.base import LOW, MEDIUM, Finding, Transcript
from detectors.pii_rules import CONTEXT, MAX_ITEM, MAX_SPACED, PROVINCES, SECRET, TAIL, Item, items, plain

HOLD_BACK = MAX_ITEM
"""Most code points that a stream may keep waiting; ordinary text waits for the end of its last word only."""
MAX_ITEMS = 16
"""Items reported per part."""
MAX_TRIES = 2_048
"""Places per part at which an item could begin that are looked at for findings; some 20 ms where all are digits."""
GRAVE = frozenset({SECRET, "CN_ID", "CN_BANK_CARD", "CREDIT_CARD", "IBAN", "US_SSN"})
"""Types whose loss does lasting harm: MEDIUM findings, the others LOW."""
_HINT = re.compile(r"[0-9](?:(?:[ .:()-]{0,2}[0-9]){4}|\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9])")
_PLATE_HINT = re.compile(f"[{PROVINCES}][A-Z]")
_RUN = bytes(119 if chr(byte).isalnum() or byte in b"_-:." else 32 for byte in range(128)) + bytes(128)
_LONG_RUN = b"w" * 17
_WORD = re.compile(f"[!-~·{PROVINCES}]*")
_DIGIT = re.compile("[0-9]")
_OPEN = re.compile(f"(?:(?<![A-Za-z0-9])[A-Z]{{2}}|[{PROVINCES}][A-Z])\\Z")


class PiiDetector:
    """Findings `pii.<type>` below the default block severity: prompts with personal data are recorded, not refused."""

    name = "pii"

    def screen(self, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
        """Findings per transcript, at most MAX_ITEMS of a part; the operator's own words are not screened."""
        places = [
            (row, turn, part.text)
            for row, transcript in enumerate(texts)
            for turn, part in enumerate(transcript)
            if part.role != "system"
        ]
        found: list[list[Finding]] = [[] for _ in texts]
        for index in _hinted([text for _, _, text in places]):
            row, turn, text = places[index]
            found[row] += _findings(text, turn)
        return [tuple(row) for row in found]


def redact(text: str) -> tuple[str, tuple[Item, ...]]:
    """The text with every item replaced by `[TYPE]`, and the items with offsets of the original text."""
    found = tuple(items(plain(text)))
    out: list[str] = []
    at = 0
    for item in found:
        out += (text[at : item.start], f"[{item.type}]")
        at = item.end
    out.append(text[at:])
    return "".join(out), found


class StreamRedactor:
    """Redacts a text that arrives in pieces. Holds back what may still grow into an item, HOLD_BACK at most."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        """Items redacted so far, by type."""
        self._kept = ""
        self._pending = ""
        self._in_secret = False

    def push(self, text: str) -> str:
        """What is safe to show once `text` has arrived."""
        self._pending += text
        return self._drain(final=False)

    def flush(self) -> str:
        """The rest, when nothing more will come."""
        return self._drain(final=True)

    def _drain(self, *, final: bool) -> str:
        if self._in_secret and not self._skip_secret(final):
            return ""
        text = self._kept + self._pending
        read, at = plain(text), len(self._kept)
        cut = len(text) if final else _safe(read, at)
        out: list[str] = []
        for item in items(read, at):
            if item.start >= cut:
                break
            out += (text[at : item.start], f"[{item.type}]")
            at = item.end
            self.counts[item.type] = self.counts.get(item.type, 0) + 1
            self._in_secret = item.type == SECRET and not final and read[at:] in ("", ".")
        if at < cut:
            out.append(text[at:cut])
            at = cut
        self._kept, self._pending = text[max(0, at - CONTEXT) : at], text[at:]
        return "".join(out)

    def _skip_secret(self, final: bool) -> bool:
        """Drop what still belongs to a secret that was redacted; whether it is over."""
        read = plain(self._pending)
        match = TAIL.match(read)
        end = match.end() if match else 0
        self._kept = (self._kept + self._pending[:end])[-CONTEXT:]
        self._pending = self._pending[end:]
        self._in_secret = not final and read[end:] in ("", ".")
        return not self._in_secret


def _safe(text: str, low: int) -> int:
    """The end of what no later text can change: before the last word, and before words it may belong to.

    Only a word with a digit, two capitals or a plate's province can begin an item that goes on after a space, and
    no word of small letters lies inside an item (`pii_rules`).
    """
    cut = at = _word_start(text, max(low, len(text) - MAX_ITEM), len(text))
    while at - 1 > max(low, len(text) - MAX_SPACED) and text[at - 1] == " ":
        start = _word_start(text, max(low, at - 1 - MAX_SPACED), at - 1)
        before = text[start : at - 1]
        if not before:
            break
        if _DIGIT.search(before) or _OPEN.search(before):
            cut = start
        elif not before.isupper():
            break
        at = start
    return cut


def _word_start(text: str, low: int, end: int) -> int:
    """Where the run of characters that items are made of, which ends at `end`, begins; not before `low`."""
    run = _WORD.match(text[low:end][::-1])
    return end - (run.end() if run else 0)


def _hinted(texts: list[str]) -> list[int]:
    """Which texts may hold an item, by tests that cost nanoseconds a character; redaction never rests on them."""
    starts, at = [], 0
    for text in texts:
        starts.append(at)
        at += len(text) + 1
    joined = plain("\n".join(texts))
    run = joined.encode("ascii", "replace").translate(_RUN)
    hinted: set[int] = set()
    tests: list[Callable[[int], int]] = [lambda at: joined.find("@", at), lambda at: run.find(_LONG_RUN, at)]
    for pattern in (_HINT,) if joined.isascii() else (_HINT, _PLATE_HINT):
        tests.append(lambda at, pattern=pattern: found.start() if (found := pattern.search(joined, at)) else -1)  # type: ignore[misc]
    for test in tests:
        at = test(0)
        while at >= 0:
            index = bisect_right(starts, at) - 1
            hinted.add(index)
            at = test(starts[index + 1]) if index + 1 < len(starts) else -1
    return sorted(hinted)


def _findings(text: str, turn: int) -> list[Finding]:
    found = []
    for item in islice(items(plain(text), tries=MAX_TRIES), MAX_ITEMS):
        severity = MEDIUM if item.type in GRAVE else LOW
        found.append(Finding(f"pii.{item.type.lower()}", severity, 90, item.start, item.end, "raw", turn))
    return found
