"""One pass over a text for structured items: cheap anchors first, patterns only at words that hold one."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from detectors.pii.item import Item, plain
from detectors.pii.shape import CONTEXT, Shape
from detectors.pii.shapes import ENTROPIC, MAX_ITEM, NUMBERS, PLATES, PROVINCES, REACH, START, WORDS

WORD = f"!-~·À-ɏ{PROVINCES}"
"""Class of the characters that items are made of; spaces inside one are told apart by the shapes."""
_ANCHOR = re.compile("[0-9@]")
_HINT = re.compile(r"[0-9](?:(?:[ .:()-]{0,2}[0-9]){4}|\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9])")
_WIDE_ANCHOR = re.compile("[0-9@\uff10-\uff19\uff20-\uff3a\uff41-\uff5a]")
_PLATE = re.compile(f"[{PROVINCES}][A-Z]")
_WORD_END = re.compile(f"[^{WORD}]")
_WORD_BACK = re.compile(f"[{WORD}]*")
_OPEN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2} \Z")
_RUN = bytes(119 if chr(byte).isalnum() or byte in b"_-+/" else 32 for byte in range(128)) + bytes(128)
_LONG_RUN = b"w" * 16
_HINT_RUN = bytes(119 if chr(byte).isalnum() or byte in b"_-:." else 32 for byte in range(128)) + bytes(128)
_LONG_HINT_RUN = b"w" * 17


class Found(NamedTuple):
    """An item, and how it goes on where it may go on after the text that is there."""

    item: Item
    tail: re.Pattern[str] | None


def may_hold(text: str) -> bool:
    """Whether a text, `plain` or not, has anything that an item is found by; False for nearly all ordinary text."""
    if text.isascii():
        return _ANCHOR.search(text) is not None or _has_run(text)
    return _WIDE_ANCHOR.search(text) is not None or _PLATE.search(text) is not None or _has_run(text)


def _has_run(text: str) -> bool:
    return _LONG_RUN in text.encode("ascii", "replace").translate(_RUN)


def items(text: str, start: int = 0, tries: int = sys.maxsize) -> Iterator[Item]:
    """Items of a `plain` text that start at or after `start`, in order, without overlap; `tries` places are tried."""
    return (found.item for found in scan(text, start, tries))


def scan(text: str, start: int = 0, tries: int = sys.maxsize) -> Iterator[Found]:
    """As `items`, with the tails that a stream needs. Time is linear in the text: every pattern reads MAX_ITEM."""
    at = start
    for low, high in _words(text, start):
        at = max(at, low)
        while at < high and tries > 0:
            place = START.search(text, at, high + REACH)
            if place is None or (at := place.start()) >= high:
                break
            tries -= 1
            found = _item(text, at)
            if found is None:
                at += 1
                continue
            yield found
            at = found.item.end


def _item(text: str, at: int) -> Found | None:
    before = text[max(0, at - CONTEXT) : at].lower()
    for form in _shapes(text[at]):
        match = form.pattern.match(text, at, at + MAX_ITEM)
        if match is None or not (length := form.confirm(match[0], before)):
            continue
        end = at + length
        grows = form.tail is not None and (form.type != "EMAIL" or length == MAX_ITEM)
        if grows and form.tail is not None:
            end = _beyond(form.tail, text, end)
        return Found(Item(form.type, at, end, form.score), form.tail if grows else None)
    return None


def _beyond(tail: re.Pattern[str], text: str, end: int) -> int:
    rest = tail.match(text, end)
    return rest.end() if rest else end


def _shapes(first: str) -> tuple[Shape, ...]:
    if first in "0123456789+(":
        return _NUMBERS
    return PLATES if first > "ɏ" else _WORDS


_NUMBERS, _WORDS = NUMBERS + ENTROPIC, WORDS + ENTROPIC


def _words(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that every item at or after `start` begins in: words with an anchor of one, in order."""
    run = text.encode("ascii", "replace").translate(_RUN)
    at, none = start, len(text)
    digit = plate = long = start - 1
    while True:
        if digit < at:
            digit = found.start() if (found := _ANCHOR.search(text, at)) else none
        if long < at:
            long = found_at if (found_at := run.find(_LONG_RUN, at)) >= 0 else none
        if plate < at:
            plate = found.start() if (found := _PLATE.search(text, at)) else none
        first = min(digit, plate, long)
        if first >= none:
            return
        low = _word_start(text, max(start, first - MAX_ITEM), first)
        end = _WORD_END.search(text, first)
        at = end.start() if end else none
        yield low, at


def hinted(texts: Sequence[str]) -> list[int]:
    """Which texts may hold an item, by tests that cost nanoseconds a character; redaction never rests on them."""
    starts, at = [], 0
    for text in texts:
        starts.append(at)
        at += len(text) + 1
    joined = plain("\n".join(texts))
    run = joined.encode("ascii", "replace").translate(_HINT_RUN)
    found: set[int] = set()
    tests: list[Callable[[int], int]] = [lambda at: joined.find("@", at), lambda at: run.find(_LONG_HINT_RUN, at)]
    tests.append(lambda at: joined.find("::", at))
    for pattern in (_HINT,) if joined.isascii() else (_HINT, _PLATE):
        tests.append(lambda at, pattern=pattern: place.start() if (place := pattern.search(joined, at)) else -1)  # type: ignore[misc]
    for test in tests:
        at = test(0)
        while at >= 0:
            index = bisect_right(starts, at) - 1
            found.add(index)
            at = test(starts[index + 1]) if index + 1 < len(starts) else -1
    return sorted(found)


def _word_start(text: str, low: int, anchor: int) -> int:
    """Where the word around `anchor` begins, and the one before it where an item may hold a space after that."""
    back = _WORD_BACK.match(text[low:anchor][::-1])
    at = anchor - (back.end() if back else 0)
    open_word = _OPEN.search(text, max(low, at - 4), at)
    return at if open_word is None else open_word.start()
