"""Attribution of a text to a watermark key: scores under every key, and the chance of a false alarm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from itertools import takewhile
from typing import NamedTuple

import numpy as np

from inference.watermark.keys import CONTEXT, LAYERS, MarkKey, Tokens, bits_of, with_token
from inference.watermark.significance import family, tail_probability

LAYER_WEIGHTS = tuple(round(10 - 9 * layer / (LAYERS - 1)) for layer in range(LAYERS))
"""Early layers decide more matches, so they tell more (linear, as in the paper); integers make the tail exact."""
ALARM = 1e-6
"""A text is attributed where the corrected false-alarm probability is below this."""
MOST = 16
"""Keys named of one text."""


@dataclass(frozen=True, slots=True)
class Score:
    """A text under one key. ``z`` in standard deviations; ``probability`` of that by chance under this one key."""

    tenant: str
    epoch: int
    total: int
    scored: int
    z: float
    probability: float


@dataclass(frozen=True, slots=True)
class Detection:
    """The best of ``tried`` keys over ``readings`` of the text. ``false_alarm`` is corrected for the number of both.

    ``others``, best first: further keys that the text would be attributed to by themselves, such as those of a second
    tenant or of another month.
    """

    best: Score | None
    tried: int
    false_alarm: float
    others: tuple[Score, ...] = ()
    readings: int = 1

    @property
    def attributed(self) -> bool:
        """True where the false-alarm probability is low enough to name the best key."""
        return self.false_alarm < ALARM


def scored_pairs(tokens: Sequence[int]) -> tuple[Tokens, Tokens]:
    """``[n, 4]`` contexts and ``[n]`` tokens of a text, each distinct pair once: a repeat is no new evidence."""
    ids = np.asarray(tokens, dtype=np.uint32)
    if len(ids) <= CONTEXT:
        return np.empty((0, CONTEXT), np.uint32), np.empty(0, np.uint32)
    windows = np.unique(np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1), axis=0)
    return np.ascontiguousarray(windows[:, :CONTEXT]), np.ascontiguousarray(windows[:, CONTEXT])


def total_of(key: MarkKey, contexts: Tokens, tokens: Tokens) -> int:
    """The weighted sum of the bits that a key gives to pairs of ``[n, 4]`` contexts and ``[n]`` tokens."""
    bits = bits_of(key.encrypt(with_token(key.encrypt(contexts), tokens)))
    return int(bits.sum(axis=0, dtype=np.int64) @ np.array(LAYER_WEIGHTS, dtype=np.int64))


def z_of(total: int, scored: int) -> float:
    """Standard deviations above the mean of text without a watermark."""
    mean = scored * sum(LAYER_WEIGHTS) / 2
    deviation = math.sqrt(scored * sum(weight * weight for weight in LAYER_WEIGHTS) / 4)
    return (total - mean) / deviation if scored else 0.0


def detect(tokens: Sequence[int], keys: Iterable[MarkKey]) -> Detection:
    """Score token ids under every key and name the best.

    Without the key a text's bits are fair coins, one set for each distinct pair, so the probability is exact and holds
    for any text; it assumes that its author did not have the key.
    """
    return detect_any([tokens], keys)


def detect_any(readings: Sequence[Sequence[int]], keys: Iterable[MarkKey]) -> Detection:
    """Score each reading of one text (``layout.readings``) under every key, and name the best.

    The union bound over keys and readings holds however much the readings share.
    """
    pairs = [pairs for pairs in map(scored_pairs, readings) if len(pairs[1])]
    totals: list[_KeyTotal] = []
    tried = 0
    for key in keys if pairs else ():
        tried += 1
        totals += [_KeyTotal.of(key, contexts, drawn) for contexts, drawn in pairs]
    if not totals:
        return Detection(None, 0, 1.0, readings=len(readings))
    tries = tried * len(pairs)
    # of equal scores the key and the reading that came first
    best_of_key: dict[tuple[str, int], _KeyTotal] = {}
    for total in nlargest(MOST * len(pairs), totals, key=lambda one: one.z):
        best_of_key.setdefault((total.tenant, total.epoch), total)
    scores = sorted((_score(one) for one in best_of_key.values()), key=lambda score: score.probability)
    others = takewhile(lambda score: family(score.probability, tries) < ALARM, scores[1:MOST])
    return Detection(scores[0], tried, family(scores[0].probability, tries), tuple(others), len(pairs))


class _KeyTotal(NamedTuple):
    """The total of one reading of a text under one key."""

    total: int
    scored: int
    z: float
    tenant: str
    epoch: int

    @classmethod
    def of(cls, key: MarkKey, contexts: Tokens, tokens: Tokens) -> _KeyTotal:
        total = total_of(key, contexts, tokens)
        return cls(total, len(tokens), z_of(total, len(tokens)), key.tenant, key.epoch)


def _score(one: _KeyTotal) -> Score:
    probability = tail_probability(one.total, one.scored, LAYER_WEIGHTS)
    return Score(one.tenant, one.epoch, one.total, one.scored, one.z, probability)
