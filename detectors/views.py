"""The readings of a batch of passages: each once as it reads clean, the few that hide something also undone."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detectors.base import Role, Transcript
from detectors.decode import decoded, tagged
from detectors.grams import Codes, Joined
from detectors.normalize import View, clean_all, loose
from detectors.suspicion import encoded_at, spelled_at

MAX_UNIT = 16
_REPEATED = re.compile(rf"(.{{1,{MAX_UNIT}}}?)\1{{3,}}", re.DOTALL)
MAX_BATCH_CHARS = 1_048_576
"""Characters joined for one pass; bounds the memory of a batch of large prompts."""


class Passage(NamedTuple):
    """One part under examination: transcript `row`, part `turn`."""

    row: int
    turn: int
    role: Role
    text: str


class Seen(NamedTuple):
    """One reading of passage `at` of the batch; `view` is None where lower case is all that differs."""

    at: int
    view: View | None
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


def collapsed(text: str) -> str:
    """The text with what stands there four times or more in a row, up to 16 characters each, kept three times."""
    return _REPEATED.sub(r"\1\1\1", text)


def repetitive(fours: Codes) -> bool:
    """Whether `collapsed` could halve the text with these grams of four characters (`char_grams`); False is sure.

    Of a unit that stands there k times in a row, all but k + 3 characters begin a gram that also began one unit before;
    only runs of a single character lose more than that, one each.
    """
    same = np.zeros(len(fours), dtype=np.bool_)
    for unit in range(1, MAX_UNIT + 1):
        same[unit:] |= fours[unit:] == fours[:-unit]
    return 8 * int(np.count_nonzero(same)) > len(fours)


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


def first_views(batch: Sequence[Passage]) -> list[Seen]:
    seen = [Seen(at, None, passage.text.lower()) for at, passage in enumerate(batch)]
    if wide := [at for at, passage in enumerate(batch) if not passage.text.isascii()]:
        for at, view in zip(wide, clean_all([batch[at].text for at in wide]), strict=True):
            seen[at] = Seen(at, view, view.text)
    return seen


def further_views(batch: Sequence[Passage], seen: Sequence[Seen], joined: Joined) -> list[Seen]:
    """Loose and decoded views of the passages that look spelled out or encoded."""
    further: list[Seen] = []
    starts = joined.starts.tolist()
    shape = joined.text.encode("ascii", "replace")
    for index in sorted({max(0, bisect_right(starts, at) - 1) for at in spelled_at(shape, joined.text)}):
        at, view, text = seen[index]
        if (read := loose(view or View("clean", text))) is not None:
            further.append(Seen(at, read, read.text))
    encoded = {max(0, bisect_right(starts, at) - 1) for at in encoded_at(shape, joined.text)}
    for index, (at, view, _) in enumerate(seen):
        if view is not None and view.starts is not None and tagged(batch[at].text):
            encoded.add(index)
    for index in sorted(encoded):
        at = seen[index].at
        further += [Seen(at, read, read.text) for read in decoded(batch[at].text) if read.text]
    return further
