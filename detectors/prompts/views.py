"""The readings of a batch of passages: each once as it reads clean, the few that hide something also undone."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detectors.base import Role, Transcript
from detectors.prompts.grams import BREAK, Hashed, Joined, hashed, join
from detectors.prompts.suspicion import encoded_at, spelled_at
from detectors.text.ciphered import ciphered, deciphered, unglued
from detectors.text.decode import tagged, undone
from detectors.text.loose import loose, unleeted, unspelled
from detectors.text.normalize import TextView, clean_all

MAX_UNIT = 16
_REPEATED = re.compile(rf"(.{{1,{MAX_UNIT}}}?)\1{{3,}}", re.DOTALL)
_NUMBERS = re.compile(r"[0-9]+(?:[ ,;:.\-/+|\n]{1,2}[0-9]+){3,}")
MAX_BATCH_CHARS = 1_048_576
"""Characters joined for one pass; bounds the memory of a batch of large prompts."""


class Passage(NamedTuple):
    """One part under examination: transcript `row`, part `turn`."""

    row: int
    turn: int
    role: Role
    text: str


class PassageReading(NamedTuple):
    """One reading of passage `at` of the batch; `view` is None where lower case is all that differs."""

    at: int
    view: TextView | None
    text: str

    @property
    def name(self) -> str:
        return "clean" if self.view is None else self.view.name

    def place(self, start: int, end: int) -> tuple[int, int]:
        """The non-empty range `[start, end)` of this reading in offsets of the original part."""
        if self.view is None:
            return start, end
        span = self.view.span(start, end)
        return span.start, span.end

    def within(self, start: int, end: int) -> tuple[int, int]:
        """The range of this reading that `[start, end)` of the original part is read as."""
        if self.view is None or self.view.starts is None:
            return start, end
        low = bisect_left(self.view.starts, start)
        return low, max(low + 1, bisect_left(self.view.starts, end))


def collapsed(text: str) -> str:
    """The text with what stands there four times or more in a row, up to 16 characters each, kept three times, and a
    list of numbers as one."""
    return _REPEATED.sub(r"\1\1\1", _NUMBERS.sub("0", text))


_SHORT = 64
"""Characters of a text of which a repetition is shorter than four times what is looked for."""


def repetitive(grams: Hashed, rows: Sequence[int]) -> list[int]:
    """Those of these texts of which `collapsed` might take out an eighth; that it halves no other is sure.

    A unit that stands there often begins the same gram of four characters four times at one distance, and twice in a
    short text. Of a list of numbers a fifth at least are digits.
    """
    fours, codes = grams.chars[-1], grams.codes
    starts, ends = grams.joined.starts, grams.joined.ends
    digits = (codes >= 0x30) & (codes <= 0x39)
    once, same = np.zeros(len(fours), dtype=np.bool_), np.zeros(len(fours), dtype=np.bool_)
    for unit in range(1, MAX_UNIT + 1):
        again = fours[unit:] == fours[:-unit]
        once[unit:] |= again
        if len(again) > 2 * unit:
            same[3 * unit :] |= again[: -2 * unit] & again[unit:-unit] & again[2 * unit :]
    once &= fours > 0
    same &= once
    bounds = np.stack([starts, ends], axis=1).ravel()
    twice, often, number = (
        np.add.reduceat(np.append(flags, False), bounds, dtype=np.intp)[0::2] for flags in (once, same, digits)
    )
    lengths = ends - starts
    chosen = (8 * np.where(lengths > _SHORT, often, twice) > lengths) | (12 * number > lengths)
    return [row for row in rows if chosen[row] and lengths[row]]


RUN, TWICE = 16, 2
"""Characters of a run that stands elsewhere in the text too, and how many times it counts."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def said_once(text: str, grams: Hashed) -> str:
    """The text without the characters of runs that stood in it TWICE already; `grams` are of this text alone."""
    fours = grams.chars[-1].astype(np.uint64)
    count = len(text) - RUN + 1
    if count <= TWICE:
        return text
    runs = np.zeros(count, dtype=np.uint64)
    for back in range(0, RUN, 4):
        start = len(BREAK) + back
        runs = runs * _SPREAD + fours[start : start + count]
    order = np.argsort(runs, kind="stable")
    same = runs[order[TWICE:]] == runs[order[:-TWICE]]
    again = np.zeros(len(text) + 1, dtype=np.intp)
    np.add.at(again, order[TWICE:][same], 1)
    np.add.at(again, order[TWICE:][same] + RUN, -1)
    kept = np.cumsum(again[:-1]) == 0
    return text if kept.all() else "".join(itertools.compress(text, kept.tolist()))


def batches(texts: Sequence[Transcript], roles: frozenset[str], limit: int) -> Iterator[list[Passage]]:
    """The parts in these roles that hold text, in batches of at most `limit` and MAX_BATCH_CHARS plus one part."""
    batch: list[Passage] = []
    size = 0
    for row, transcript in enumerate(texts):
        for turn, part in enumerate(transcript):
            if part.role not in roles or not part.text:
                continue
            batch.append(Passage(row, turn, part.role, part.text))
            size += len(part.text)
            if size >= MAX_BATCH_CHARS or len(batch) >= limit:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def first_views(batch: Sequence[Passage]) -> list[PassageReading]:
    seen = [PassageReading(at, None, passage.text.lower()) for at, passage in enumerate(batch)]
    if wide := [at for at, passage in enumerate(batch) if not passage.text.isascii()]:
        for at, view in zip(wide, clean_all([batch[at].text for at in wide]), strict=True):
            seen[at] = PassageReading(at, view, view.text)
    return seen


class Further(NamedTuple):
    """The readings that a closer look at a batch gave."""

    instead: dict[int, PassageReading]
    """By passage, the reading that stands for its first one: without its encoded runs and with its escapes read. A
    wrapper says nothing of what it holds."""
    more: list[PassageReading]


SPELLED = 0.7
"""A reading that joins letters stands for the first one where it has at most this share of its length."""


def _joined(read: TextView) -> list[TextView]:
    """The readings of a text that was encoded: as it says, or its letters joined where they stand one by one."""
    joint = loose(read)
    if joint is None:
        return [read]
    return [read, joint] if len(joint.text) > SPELLED * len(read.text) else [joint]


def _spelled(seen: PassageReading, batch: Sequence[Passage]) -> tuple[PassageReading | None, list[PassageReading]]:
    """The reading with its letters joined that stands for this one, if any, and those beside it."""
    at, view, text = seen
    joint = loose(view or TextView("clean", text))
    if joint is None:
        return None, []
    read = PassageReading(at, joint, joint.text)
    if len(joint.text) > SPELLED * len(text):
        return (read, []) if unleeted(text, joint.text) else (None, [read])
    # what stands beside the letters is read as it is, and letters that were joined without blanks as words
    words = [PassageReading(at, each, each.text) for each in unglued(batch[at].text, joint)]
    return read, [PassageReading(at, view, unspelled(text)), *words]


def further_views(batch: Sequence[Passage], seen: Sequence[PassageReading], joined: Joined) -> Further:
    """Loose and decoded views of the passages that look spelled out or encoded."""
    instead: dict[int, PassageReading] = {}
    more: list[PassageReading] = []
    starts = joined.starts.tolist()
    shape = joined.text.encode("ascii", "replace")
    encoded = {max(0, bisect_right(starts, at) - 1) for at in encoded_at(shape, joined.text)}
    for index, (at, view, _) in enumerate(seen):
        if view is not None and view.starts is not None and tagged(batch[at].text):
            encoded.add(index)
    for index in sorted(encoded):
        at = seen[index].at
        found = undone(batch[at].text)
        if found.plain is not None:
            instead[at] = PassageReading(at, found.plain, found.plain.text)
        for read in found.inside:
            more += [PassageReading(at, each, each.text) for each in _joined(read) if each.text]
    spelled = {max(0, bisect_right(starts, at) - 1) for at in spelled_at(shape, joined.text)}
    for index in sorted(spelled | {index for index, view in enumerate(seen) if view.at in instead}):
        joint, beside = _spelled(instead.get(seen[index].at, seen[index]), batch)
        if joint is not None:
            instead[joint.at] = joint
        more += beside
    for index in range(len(seen)) if ciphered(joined.text) else sorted(encoded):
        at, view, text = seen[index]
        otherwise = deciphered(batch[at].text, view or TextView("clean", text))
        more += [PassageReading(at, each, each.text) for each in otherwise]
    return Further(instead, more)


def readings(batch: Sequence[Passage]) -> Iterator[tuple[Sequence[PassageReading], Hashed]]:
    """First the reading that stands for each passage, then all further ones together, if any."""
    seen = first_views(batch)
    joined = join([view.text for view in seen])
    instead, more = further_views(batch, seen, joined)
    if instead:
        seen = [instead.get(view.at, view) for view in seen]
        joined = join([view.text for view in seen])
    yield seen, hashed(joined)
    if more:
        yield more, hashed(join([view.text for view in more]))
