"""All of personal data in one text: structured items first, then what context tells, without overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable

from detectors.pii.addresses import addresses
from detectors.pii.cued import cued
from detectors.pii.handles import handles
from detectors.pii.item import PiiItem, shown
from detectors.pii.lexicon import simplified
from detectors.pii.persons import persons
from detectors.pii.persons_scripts import persons_scripts
from detectors.pii.persons_zh import persons_zh
from detectors.pii.places import places, small_letters
from detectors.pii.scan import items

_CHINESE = re.compile("[一-鿿]")


def find(text: str, *, contextual: bool = True) -> tuple[PiiItem, ...]:
    """Items of `text` with offsets of its code points, in order, none overlapping another.

    Where recognisers disagree, a structured item wins over an address, an address over a cue, a cue over a name.
    """
    view = shown(text)
    read = view.text
    found = list(items(read))
    if contextual:
        low = small_letters(read)
        cues = places(low)
        found = _merged(found, addresses(read, cues))
        found = _merged(found, cued(read, low, cues))
        found = _merged(found, handles(read, low, cues))
        found = _merged(found, persons(read, cues))
        if not read.isascii():
            found = _merged(found, persons_scripts(read))
            if _CHINESE.search(read):
                found = _merged(found, persons_zh(simplified(read)))
    return tuple(map(view.item, found))


def _by_place(item: PiiItem) -> tuple[int, int]:
    return item.start, -item.end


def _merged(known: list[PiiItem], more: Iterable[PiiItem]) -> list[PiiItem]:
    """Both in order: of `more`, the first and longest ones that overlap nothing known."""
    fresh = list(more)
    if not fresh:
        return known
    fresh.sort(key=_by_place)
    out: list[PiiItem] = []
    following = iter([*known, None])
    after = next(following)
    done = 0
    for item in fresh:
        while after is not None and after.end <= item.start:
            out.append(after)
            after = next(following)
        if item.start >= done and (after is None or item.end <= after.start):
            out.append(item)
            done = item.end
    while after is not None:
        out.append(after)
        after = next(following)
    return out
