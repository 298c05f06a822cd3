"""One pass over a text for structured items: cheap anchors first, patterns only at words that hold one."""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from detectors.pii.item import PiiItem, shown
from detectors.pii.shape import CONTEXT, ItemPattern
from detectors.pii.shapes import ENTROPIC, MAX_ITEM, NUMBERS, PLATES, PROVINCES, REACH, START, WORDS

WORD = f"!-~·À-ɏ{PROVINCES}"
"""Class of the characters that items are made of; spaces inside one are told apart by the shapes."""
_ANCHOR = re.compile(
    r"[0-9@:.-](?:(?<=@)"
    r"|(?<=[0-9])(?:(?:[ .()-]{0,3}[0-9]){4}|[0-9]{0,2}\.[0-9]{1,3}\.[0-9])"
    r"|(?<=[A-Z]{2}[0-9])[0-9] ?[A-Z0-9]{4}|(?<=[a-z]{2}[0-9])[0-9][a-z0-9]{11}"
    r"|(?<=[0-9A-Fa-f].)(?:(?<=[:-])[0-9A-Fa-f]{2}[:-]|(?<=:)[0-9A-Fa-f]{0,4}:|(?<=\.)[0-9A-Fa-f]{4}\.))"
)
"""What every item but plates and runs has in the words that it begins in: START asks for no less. The class
comes first, the looks behind second: a pattern that begins with a class is searched for many times faster."""
_HINT = re.compile(r"[0-9](?:(?:[ .:()-]{0,2}[0-9]){4}|\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9])")
_PLATE = re.compile(f"[A-Z](?<=[{PROVINCES}][A-Z])")
"""The letter behind a plate's province: few texts in Chinese have capitals, so most of them are passed over at once."""
_WORD_END = re.compile(f"[^{WORD}]")
_WORD_BACK = re.compile(f"[{WORD}]*")
_OPEN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2} \Z")
_RUN = bytes(119 if chr(byte).isalnum() or byte in b"_-+/" else 32 for byte in range(128)) + bytes(128)
_LONG_RUN = b"w" * 16
_HINT_RUN = bytes(119 if chr(byte).isalnum() or byte in b"_-:." else 32 for byte in range(128)) + bytes(128)
_LONG_HINT_RUN = b"w" * 17


class Found(NamedTuple):
    """An item, and how it goes on where it may go on after the text that is there."""

    item: PiiItem
    tail: re.Pattern[str] | None


def items(text: str, start: int = 0, tries: int = sys.maxsize) -> Iterator[PiiItem]:
    """Items of a `plain` text that start at or after `start`, in order, without overlap; `tries` places are tried."""
    return (found.item for found in scan(text, start, tries))


def scan(text: str, start: int = 0, tries: int = sys.maxsize) -> Iterator[Found]:
    """As `items`, with the tails that a stream needs. Time is linear in the text: every pattern reads MAX_ITEM."""
    offset = start
    for low, high in _words(text, start):
        offset = max(offset, low)
        while offset < high and tries > 0:
            place = START.search(text, offset, high + REACH)
            if place is None or place.start() >= high:
                break
            offset = place.start()
            tries -= 1
            found = _item(text, offset)
            if found is None:
                offset += 1
                continue
            yield found
            offset = found.item.end


def _item(text: str, offset: int) -> Found | None:
    before = text[max(0, offset - CONTEXT) : offset].lower()
    shapes, either = _shapes(text[offset])
    # one call for the first shape whose pattern matches; only where it is not confirmed, those behind it are tried
    first = either.match(text, offset, offset + MAX_ITEM)
    if first is None or first.lastgroup is None:
        return None
    candidate = first[0]
    for index in range(int(first.lastgroup[1:]), len(shapes)):
        form = shapes[index]
        if not candidate:
            match = form.pattern.match(text, offset, offset + MAX_ITEM)
            candidate = match[0] if match else ""
        if candidate and (length := form.confirm(candidate, before)):
            return _found(form, text, offset, length)
        candidate = ""
    return None


def _found(form: ItemPattern, text: str, offset: int, length: int) -> Found:
    end = offset + length
    grows = form.tail is not None and (form.type != "EMAIL" or length == MAX_ITEM)
    if grows and form.tail is not None:
        end = _beyond(form.tail, text, end)
    return Found(PiiItem(form.type, offset, end, form.score), form.tail if grows else None)


def _beyond(tail: re.Pattern[str], text: str, end: int) -> int:
    rest = tail.match(text, end)
    return rest.end() if rest else end


class _Shapes(NamedTuple):
    """Shapes in the order in which they are tried, and the alternation of their patterns: group `sN` is shape N."""

    shapes: tuple[ItemPattern, ...]
    either: re.Pattern[str]


def _joined(shapes: tuple[ItemPattern, ...]) -> _Shapes:
    alternatives, groups = [], 0
    for index, form in enumerate(shapes):
        groups += 1
        numbered = _BACK_REFERENCE.sub(lambda ref, before=groups: f"\\{int(ref[1]) + before}", form.pattern.pattern)  # type: ignore[misc]
        alternatives.append(f"(?P<s{index}>{numbered})")
        groups += form.pattern.groups
    return _Shapes(shapes, re.compile("|".join(alternatives)))


_BACK_REFERENCE = re.compile(r"\\([1-9])")
_NUMBERS = _joined(NUMBERS + ENTROPIC)
_WORDS = _joined(WORDS + ENTROPIC)
_PLATES = _joined(PLATES)


def _shapes(first: str) -> _Shapes:
    if first in "0123456789+(":
        return _NUMBERS
    return _PLATES if first > "ɏ" else _WORDS


def _words(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that every item at or after `start` begins in: words with an anchor of one, in order."""
    run = text.encode("ascii", "replace").translate(_RUN)
    offset, none = start, len(text)
    digit = plate = long = start - 1
    if text.isascii():
        plate = none
    while True:
        if digit < offset:
            digit = found.start() if (found := _ANCHOR.search(text, offset)) else none
        if long < offset:
            long = found_at if (found_at := run.find(_LONG_RUN, offset)) >= 0 else none
        if plate < offset:
            plate = found.start() - 1 if (found := _PLATE.search(text, offset + 1)) else none
        first = min(digit, plate, long)
        if first >= none:
            return
        low = _word_start(text, max(start, first - MAX_ITEM), first)
        end = _WORD_END.search(text, first)
        offset = end.start() if end else none
        yield low, offset


def hinted(texts: Sequence[str]) -> list[int]:
    """The texts that may hold an item, by tests that cost nanoseconds a character; redaction never rests on them."""
    starts, offset = [], 0
    read = [shown(text).text for text in texts]
    for text in read:
        starts.append(offset)
        offset += len(text) + 1
    joined = "\n".join(read)
    run = joined.encode("ascii", "replace").translate(_HINT_RUN)
    found: set[int] = set()
    tests: list[Callable[[int], int]] = [
        lambda offset: joined.find("@", offset),
        lambda offset: run.find(_LONG_HINT_RUN, offset),
    ]
    tests.append(lambda offset: joined.find("::", offset))
    tests.extend(partial(_found_at, pattern, joined) for pattern in ((_HINT,) if joined.isascii() else (_HINT, _PLATE)))
    for test in tests:
        offset = test(0)
        while offset >= 0:
            index = bisect_right(starts, offset) - 1
            found.add(index)
            offset = test(starts[index + 1]) if index + 1 < len(starts) else -1
    return sorted(found)


def _found_at(pattern: re.Pattern[str], text: str, offset: int) -> int:
    """The pattern's first match from ``offset`` on begins here; -1 for none, as `str.find` has it."""
    match = pattern.search(text, offset)
    return match.start() if match else -1


def _word_start(text: str, low: int, anchor: int) -> int:
    """The beginning of the word around `anchor`, and of the one before it where an item may hold a space after that."""
    back = _WORD_BACK.match(text[low:anchor][::-1])
    offset = anchor - (back.end() if back else 0)
    open_word = _OPEN.search(text, max(low, offset - 4), offset)
    return offset if open_word is None else open_word.start()
