"""Whose watermark a text bears: scores under every key, and the chance of a false alarm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from inference.watermark.keys import CONTEXT, LAYERS, MarkKey, Tokens, bits_of, with_token
from inference.watermark.significance import family, tail_probability

LAYER_WEIGHTS = tuple(round(10 - 9 * layer / (LAYERS - 1)) for layer in range(LAYERS))
"""Early layers decide more matches, so they tell more (linear, as in the paper); integers make the tail exact."""
ALARM = 1e-6
"""A text is attributed where the corrected false-alarm probability is below this."""


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
    """The best of ``tried`` keys. ``false_alarm`` is corrected for their number."""

    best: Score | None
    tried: int
    false_alarm: float

    @property
    def attributed(self) -> bool:
        return self.false_alarm < ALARM


def scored_pairs(tokens: Sequence[int]) -> tuple[Tokens, Tokens]:
    """``[n, 4]`` contexts and ``[n]`` tokens of a text, each distinct pair once: a repeat is no new evidence."""
    ids = np.asarray(tokens, dtype=np.uint32)
    if len(ids) <= CONTEXT:
        return np.empty((0, CONTEXT), np.uint32), np.empty(0, np.uint32)
    windows = np.unique(np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1), axis=0)
    return np.ascontiguousarray(windows[:, :CONTEXT]), np.ascontiguousarray(windows[:, CONTEXT])


def total_of(key: MarkKey, contexts: Tokens, tokens: Tokens) -> int:
    """The weighted sum of the bits that a key gives to ``n`` pairs."""
    bits = bits_of(key.encrypt(with_token(key.encrypt(contexts), tokens)))
    return int(bits.sum(axis=0, dtype=np.int64) @ np.array(LAYER_WEIGHTS, dtype=np.int64))


def z_of(total: int, scored: int) -> float:
    """Standard deviations above what no watermark gives."""
    mean = scored * sum(LAYER_WEIGHTS) / 2
    deviation = math.sqrt(scored * sum(weight * weight for weight in LAYER_WEIGHTS) / 4)
    return (total - mean) / deviation if scored else 0.0


def detect(tokens: Sequence[int], keys: Iterable[MarkKey]) -> Detection:
    """Score token ids under every key and name the best.

    Without the key a text's bits are fair coins, one set for each distinct pair, so the probability is exact and holds
    for any text; it assumes that its author did not have the key.
    """
    contexts, drawn = scored_pairs(tokens)
    best: MarkKey | None = None
    highest, tried = -1, 0
    if len(drawn):
        for key in keys:
            tried += 1
            total = total_of(key, contexts, drawn)
            if total > highest:
                best, highest = key, total
    if best is None:
        return Detection(None, tried, 1.0)
    chance = tail_probability(highest, len(drawn), LAYER_WEIGHTS)
    score = Score(best.tenant, best.epoch, highest, len(drawn), z_of(highest, len(drawn)), chance)
    return Detection(score, tried, family(chance, tried))
