"""Logistic regression over hashed n-grams by Adagrad (Duchi et al. 2011), in numpy, reproducible from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.prompts.grams import OFFSETS, WIDTH, blocks, hashed, join
from detectors.prompts.scorer import SMOOTH

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
_CHUNK = 512
_BATCH = 1024


class Grams(NamedTuple):
    """The gram indices of many texts, text i's at `ids[offsets[i]:offsets[i + 1]]`; `scale` is each text's factor."""

    ids: Ints
    offsets: npt.NDArray[np.int64]
    scale: Floats

    def take(self, rows: npt.NDArray[np.intp]) -> Grams:
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        shift = np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Grams(self.ids[np.arange(offsets[-1]) + shift], offsets, self.scale[rows])

    def slice(self, start: int, stop: int) -> Grams:
        """The texts `start` to `stop`, without copying."""
        low, high = self.offsets[start], self.offsets[stop]
        return Grams(self.ids[low:high], self.offsets[start : stop + 1] - low, self.scale[start:stop])

    def margins(self, weights: Floats) -> Floats:
        """One sum of weights per text, times its factor."""
        sums = np.add.reduceat(np.append(weights.take(self.ids), np.float32(0)), self.offsets[:-1])
        return np.asarray(sums * (np.diff(self.offsets) > 0) * self.scale, dtype=np.float32)


class LinearScorer(NamedTuple):
    weights: Floats
    bias: float


def grams_of(texts: Sequence[str]) -> Grams:
    """The grams that the scorer would look up; texts as they read clean."""
    ids, lengths = [], []
    sizes = []
    for first in range(0, len(texts), _CHUNK):
        joined = join(texts[first : first + _CHUNK])
        grams, places = [], []
        for block in blocks(hashed(joined)):
            kept = np.flatnonzero(block.slots)
            grams.append(block.slots[kept].astype(np.int32) + np.int32(OFFSETS[block.order]))
            places.append(kept if block.places is None else block.places[kept])
        text = np.searchsorted(joined.ends + 1, np.concatenate(places))
        ids.append(np.concatenate(grams)[np.argsort(text, kind="stable")])
        lengths.append(np.bincount(text, minlength=len(joined.starts)))
        sizes.append(joined.ends - joined.starts)
    offsets = np.concatenate(([0], np.cumsum(np.concatenate(lengths)))).astype(np.int64)
    scale = 1 / np.sqrt(np.concatenate(sizes) + 1 + SMOOTH)
    return Grams(np.concatenate(ids), offsets, scale.astype(np.float32))


def fit(
    grams: Grams, attack: Floats, weight: Floats, *, epochs: int, rate: float = 0.5, decay: float = 1e-6, seed: int = 0
) -> LinearScorer:
    """Weights (WIDTH) and bias. `decay`: L2 penalty per example of a batch."""
    draw = np.random.default_rng(seed)
    # shuffled once, so that a batch is a slice; the epochs differ in the order of the batches
    order = draw.permutation(len(attack))
    grams = grams.take(order)
    attack, weight = attack[order], weight[order]
    weights, squares = np.zeros(WIDTH, np.float32), np.full(WIDTH, 1e-3, np.float32)
    bias, bias_square = 0.0, 1e-3
    starts = np.arange(0, len(attack), _BATCH)
    for _ in range(epochs):
        for start in draw.permutation(starts).tolist():
            rows = slice(start, start + _BATCH)
            batch = grams.slice(start, min(start + _BATCH, len(attack)))
            odds = np.clip(batch.margins(weights) + bias, -30, 30)
            slope = (1 / (1 + np.exp(-odds)) - attack[rows]) * weight[rows]
            each = np.repeat(slope * batch.scale, np.diff(batch.offsets))
            gradient = np.bincount(batch.ids, weights=each, minlength=WIDTH).astype(np.float32)
            gradient += np.float32(decay * len(slope)) * weights
            squares += gradient * gradient
            weights -= np.float32(rate) * gradient / np.sqrt(squares)
            total = float(slope.sum())
            bias_square += total * total
            bias -= rate * total / bias_square**0.5
    return LinearScorer(weights, bias)
