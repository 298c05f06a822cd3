"""The learned scorer: a linear model over hashed n-grams, one set of weights per role, for a whole batch at once.

Weights are small integers, so a text's margin is the same alone, in a batch and on every machine. What
each place adds is known once for all; a window's margin is a difference of two running sums, divided by the square root
of its length. `python -m detectors.prompts.training` makes the weights; `weights/prompts.md` says from what.
"""

from __future__ import annotations

import functools
import math
from importlib import resources
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from detectors.prompts.grams import WIDTH, Hashed

HEADS = ("user", "document", "system")
SMOOTH = 16
"""Characters added to every length, so that one word says less than a sentence made of such."""
LONG = 4_000
"""Characters from which a text's margin no longer grows with its length: what is learned from is no longer, and a trace
of a weight at each of a hundred thousand places would add up to certainty."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WindowEdges = tuple[Floats, npt.NDArray[np.intp], npt.NDArray[np.intp]]


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scale of one role's integer margins in log-odds. `window`, `stride`: characters; longer texts are windowed.

    `many`: log-odds that the worst of n windows loses for each natural logarithm of n, as the worst of many is high by
    chance alone.
    """

    scale: float
    bias: float
    window: Annotated[int, msgspec.Meta(ge=16)]
    stride: Annotated[int, msgspec.Meta(ge=1)]
    many: float = 0.0
    close: int = 0
    """Characters of a window of its own for texts that are windowed: the best of these, less `price` for each natural
    logarithm of how many there are, is the least that the whole and its worst window are taken for. 0: none."""
    price: float = 0.0

    @property
    def closer(self) -> Head:
        """The close windows as a form of their own."""
        return replace(self, window=self.close, stride=max(1, self.close // 4), many=self.price)


class Margins(NamedTuple):
    """Per text, log-odds before rules: of the whole, and of the worst window with where it lies in the text."""

    whole: Floats
    worst: Floats
    starts: Ints
    ends: Ints


class Scorer:
    """Weights (3, WIDTH) int8 in the order of HEADS."""

    def __init__(self, weights: npt.NDArray[np.int8], heads: dict[str, Head]) -> None:
        self.weights = weights
        self.heads = tuple(heads[name] for name in HEADS)

    def places(self, grams: Hashed, head: int) -> npt.NDArray[np.int16]:
        """Sum of the weights at each place of the batch."""
        table = self.weights[head]
        found = table.take(grams.chars)
        sums: npt.NDArray[np.int16] = np.add(found[0], found[1], dtype=np.int16)
        sums += found[2]
        sums[grams.starts] += np.add.reduce(table.take(grams.words), axis=0, dtype=np.int16)
        return sums

    def total(self, grams: Hashed, head: int) -> int:
        """Sum of all weights: what `places` adds up to."""
        table = self.weights[head]
        return int(table.take(grams.chars).sum(dtype=np.int64)) + int(table.take(grams.words).sum(dtype=np.int64))

    def margins(self, grams: Hashed, head: int) -> Margins:
        """Of every text of the batch, read in the role of HEADS[head]."""
        form = self.heads[head]
        starts, ends = grams.joined.starts, grams.joined.ends
        lengths = ends - starts
        if len(starts) == 1 and lengths[0] <= form.window:
            whole = _margin(np.array((self.total(grams, head),)), lengths + 1, form)
            return Margins(whole, whole, np.zeros_like(lengths), lengths)
        sums = self.places(grams, head)
        if len(starts) == 1:
            return _alone(sums, int(starts[0]), int(ends[0]), form)
        bounds = np.empty(2 * len(starts), dtype=np.intp)
        np.subtract(starts, 1, out=bounds[0::2])
        bounds[1::2] = ends
        whole = _margin(np.add.reduceat(sums, bounds, dtype=np.int64)[0::2], lengths + 1, form)
        long = (lengths > form.window).nonzero()[0]
        if not len(long):
            return Margins(whole, whole, np.zeros_like(lengths), lengths)
        running = np.zeros(len(sums) + 1, dtype=np.int64)
        np.cumsum(sums, out=running[1:])
        worst = whole.copy()
        begin, end = np.zeros_like(starts), lengths.copy()
        worst[long], begin[long], end[long] = _worst_windows(running, starts[long], ends[long], form)
        if form.close:
            near, low, high = _worst_windows(running, starts[long], ends[long], form.closer)
            nearer = near > worst[long]
            begin[long], end[long] = np.where(nearer, low, begin[long]), np.where(nearer, high, end[long])
            whole[long], worst[long] = np.maximum(whole[long], near), np.maximum(worst[long], near)
        return Margins(whole, worst, begin, end)


def _worst_windows(running: Ints, starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp], form: Head) -> WindowEdges:
    """Of each text the margin of its worst window, less what so many cost, and where that lies in the text."""
    rows, low = _windows(starts, ends, form)
    value = _margin(running[low + form.window] - running[low], np.full(len(low), form.window, dtype=np.intp), form)
    best = _first_best(rows, value)
    begin = low[best] - starts
    return value[best] - form.many * np.log(windows_of(ends - starts, form)), begin, begin + form.window


def _alone(sums: npt.NDArray[np.int16], start: int, end: int, form: Head) -> Margins:
    """The margins of one text that has windows: as of many, with few calls, which are what it costs."""
    running = np.zeros(len(sums) + 1, dtype=np.int64)
    np.add.accumulate(sums, dtype=np.int64, out=running[1:])
    worst, begin = _worst_window(running, start, end, form)
    window = form.window
    total = int(running[end]) - int(running[start - 1])
    long = min(1.0, math.sqrt(LONG / (end - start + 1)))
    whole = total * form.scale / math.sqrt(end - start + 1 + float(SMOOTH)) * long + form.bias
    if form.close:
        near, low = _worst_window(running, start, end, form.closer)
        if near > worst:
            worst, begin, window = near, low, form.close
        whole = max(whole, near)
    return Margins(*(np.array((one,)) for one in (whole, worst, begin, begin + window)))


def _worst_window(running: Ints, start: int, end: int, form: Head) -> tuple[float, int]:
    last = end - form.window
    low = np.arange(start, last + form.stride, form.stride)
    low[-1] = last
    value = running.take(low + form.window)
    value -= running.take(low)
    odds = value * form.scale / math.sqrt(form.window + float(SMOOTH)) + form.bias
    best = int(odds.argmax())
    return float(odds[best]) - form.many * _log(len(low)), int(low[best]) - start


@functools.cache
def _log(count: int) -> float:
    """As numpy gives it for many."""
    return float(np.log(np.array((count,)))[0])


def _margin(sums: Ints, lengths: npt.NDArray[np.intp], form: Head) -> Floats:
    long = np.minimum(1.0, np.sqrt(LONG / lengths))
    return np.asarray(sums * form.scale / np.sqrt(lengths + float(SMOOTH)) * long + form.bias, dtype=np.float64)


def windows_of(lengths: npt.NDArray[np.intp], form: Head) -> npt.NDArray[np.intp]:
    """The number of windows of texts of these lengths; at most `window` characters are one."""
    return np.asarray(-(-np.maximum(lengths - form.window, 0) // form.stride) + 1, dtype=np.intp)


def _windows(
    starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp], form: Head
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(text, start) of every window: one each `stride`, and the last one ends with the text."""
    counts = windows_of(ends - starts, form)
    rows = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, np.minimum(starts[rows] + within * form.stride, ends[rows] - form.window)


def _first_best(rows: npt.NDArray[np.intp], value: Floats) -> npt.NDArray[np.intp]:
    """Index of each row's highest value, the first of equals."""
    order = np.lexsort((-value, rows))
    return order[np.flatnonzero(np.diff(rows, prepend=-1))]


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Log-odds from which a text of one language is uncertain, flagged and blocked."""

    uncertain: float
    flag: float
    block: float
    give: float = 0.0
    """Half of the 95 % interval of `flag`, by leaving out each source of benign rows in turn."""


class ScorerModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`weights/prompts.json`: how margins and rules add up, and one threshold per role and language."""

    version: str
    heads: dict[str, Head]
    worst: dict[str, float]
    """By role, the share of the worst window in the margin; the rest is the whole text's."""
    use: float
    """Log-odds that a rule's use at full confidence adds."""
    more: float
    """Log-odds for each further rule in use, three at most."""
    hidden: float
    """Log-odds for a use that only an undone disguise shows."""
    suffix: float = msgspec.field(name="salad")
    """Log-odds for a row of tokens behind a request."""
    zones: dict[str, dict[str, Zone]]


@functools.cache
def load() -> tuple[ScorerModel, Scorer]:
    """The model that is shipped."""
    folder = resources.files("detectors.prompts") / "weights"
    model = msgspec.json.decode((folder / "prompts.json").read_bytes(), type=ScorerModel)
    with resources.as_file(folder / "prompts.npz") as file, np.load(file) as archive:
        weights = np.asarray(archive["weights"], dtype=np.int8)
    if weights.shape != (len(HEADS), WIDTH):
        raise ValueError(f"weights/prompts.npz: expected shape {(len(HEADS), WIDTH)}, got {weights.shape}; train anew")
    return model, Scorer(weights, model.heads)
