"""All of personal data in one text: structured items first, then what context tells, without overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable

from detectors.pii.addresses import addresses
from detectors.pii.cued import cued
from detectors.pii.item import Item, plain
from detectors.pii.persons import persons
from detectors.pii.persons_zh import persons_zh
from detectors.pii.scan import items

_CHINESE = re.compile("[一-鿿]")


def find(text: str, *, contextual: bool = True) -> tuple[Item, ...]:
    """Items of `text` with offsets of its code points, in order, none overlapping another.

    Where recognisers disagree, a format with a check digit wins over an address, an address over a cue, a cue over a name.
    """
    read = plain(text)
    found = list(items(read))
    if contextual:
        for recogniser in (addresses, cued, persons):
            found = _merged(found, recogniser(read))
        if _CHINESE.search(read):
            found = _merged(found, persons_zh(read))
    return tuple(found)


def _merged(known: list[Item], more: Iterable[Item]) -> list[Item]:
    """Both in order; of `more` those that overlap nothing."""
    fresh = sorted(more, key=lambda item: (item.start, -item.end))
    out: list[Item] = []
    for item in sorted([*known, *fresh], key=lambda item: item.start):
        out.append(item)
    taken: list[Item] = []
    ids = set(map(id, known))
    for item in out:
        if id(item) in ids:
            while taken and taken[-1].end > item.start and id(taken[-1]) not in ids:
                taken.pop()
            taken.append(item)
        elif not taken or item.start >= taken[-1].end:
            taken.append(item)
    return taken
