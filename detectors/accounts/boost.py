"""Boosted symmetric trees over integers, trained in numpy alone and read as integers (after Prokhorenkova et al. 2018).

A symmetric tree asks the same DEPTH questions of every row, so all trees of a model are read at once.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

DEPTH = 4
BINS = 32
UNIT = 1000
"""Scores are log-odds in thousandths."""
_LINED_UP, _TOP_BYTE = np.uint32(1 << 24 | 1 << 17 | 1 << 10 | 1 << 3), np.uint32(24)
Rows = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float64]


class Trees(msgspec.Struct, frozen=True):
    """Of each tree: DEPTH columns, DEPTH bounds (a row is above or not) and 2 ** DEPTH leaves, all flat."""

    columns: tuple[int, ...]
    bounds: tuple[int, ...]
    leaves: tuple[int, ...]
    base: int


class Forest:
    """`Trees`, laid out to score one row or many."""

    def __init__(self, trees: Trees) -> None:
        self._columns = np.array(trees.columns, dtype=np.intp)
        self._bounds = np.array(trees.bounds, dtype=np.int32)
        self._leaves = np.array(trees.leaves, dtype=np.int32)
        count = len(trees.columns) // DEPTH
        self._digits = 1 << np.arange(DEPTH, dtype=np.intp)
        self._starts = np.arange(count, dtype=np.intp) << DEPTH
        self._firsts = self._starts.astype(np.uint32)
        self._base = trees.base

    def scores(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Log-odds in thousandths, one per row of shape [rows, columns]."""
        above = rows[:, self._columns] > self._bounds
        leaf = above.reshape(len(rows), -1, DEPTH) @ self._digits + self._starts
        summed: npt.NDArray[np.int64] = self._leaves[leaf].sum(axis=1, dtype=np.int64) + self._base
        return summed

    def score(self, row: Rows) -> int:
        """Log-odds of one row in thousandths."""
        above = row.take(self._columns) > self._bounds
        # a tree's DEPTH answers are the bytes of one number, and what it is multiplied by lines them up as bits
        leaf = above.view("<u4") * _LINED_UP >> _TOP_BYTE
        leaf += self._firsts
        return int(np.add.reduce(self._leaves.take(leaf))) + self._base


class Recipe(NamedTuple):
    """How to train: trees, learning rate, ridge on leaves, share of columns a tree may ask about."""

    trees: int = 360
    rate: float = 0.06
    ridge: float = 3.0
    columns: float = 0.25
    seed: int = 1


def fit(rows: Rows, labels: npt.NDArray[np.bool_], weights: Weights, recipe: Recipe) -> Trees:
    """Trees that separate the labelled rows under log loss; the same input gives the same trees."""
    edges = [_edges(rows[:, column]) for column in range(rows.shape[1])]
    bins = np.stack([np.searchsorted(edge, rows[:, at], side="left") for at, edge in enumerate(edges)]).astype(np.intp)
    draw = np.random.default_rng(recipe.seed)
    margin = np.zeros(len(rows))
    columns: list[int] = []
    bounds: list[int] = []
    leaves: list[int] = []
    for _ in range(recipe.trees):
        odds = 1 / (1 + np.exp(-margin))
        slope, curve = weights * (odds - labels), weights * odds * (1 - odds)
        allowed = draw.choice(rows.shape[1], max(1, int(rows.shape[1] * recipe.columns)), replace=False)
        tree, leaf = _grow(bins, np.sort(allowed), slope, curve, recipe.ridge)
        totals = [np.bincount(leaf, part, minlength=1 << DEPTH) for part in (slope, curve)]
        values = np.rint(-recipe.rate * totals[0] / (totals[1] + recipe.ridge) * UNIT).astype(np.int64)
        margin += values[leaf] / UNIT
        columns += [column for column, _ in tree]
        bounds += [
            int(edges[column][at]) if at < len(edges[column]) else int(rows[:, column].max()) for column, at in tree
        ]
        leaves += values.tolist()
    return Trees(tuple(columns), tuple(bounds), tuple(leaves), 0)


def _edges(values: Rows) -> npt.NDArray[np.int32]:
    """Upper bounds of at most BINS bins, without the last."""
    distinct = np.unique(values)
    if len(distinct) > BINS:
        distinct = np.unique(np.quantile(values[values > distinct[0]], np.arange(BINS) / BINS, method="lower"))
        distinct = np.unique(np.append(distinct, values.min()))[:BINS]
    return distinct[:-1].astype(np.int32) if len(distinct) > 1 else distinct.astype(np.int32)


def _grow(
    bins: npt.NDArray[np.intp], allowed: npt.NDArray[np.int64], slope: Weights, curve: Weights, ridge: float
) -> tuple[list[tuple[int, int]], npt.NDArray[np.intp]]:
    """The questions of one tree, each (column, bin), and the leaf of every row."""
    leaf = np.zeros(bins.shape[1], dtype=np.intp)
    tree: list[tuple[int, int]] = []
    for level in range(DEPTH):
        best = (-1.0, 0, 0)
        for column in allowed:
            place = leaf * (BINS + 1) + bins[column]
            shape = (1 << level, BINS + 1)
            size = shape[0] * shape[1]
            down = np.bincount(place, slope, minlength=size).reshape(shape).cumsum(axis=1)
            held = np.bincount(place, curve, minlength=size).reshape(shape).cumsum(axis=1)
            up, rest = down[:, -1:] - down, held[:, -1:] - held
            gain = (down**2 / (held + ridge) + up**2 / (rest + ridge)).sum(axis=0)
            at = int(gain[:-1].argmax())
            if gain[at] > best[0]:
                best = (float(gain[at]), int(column), at)
        tree.append(best[1:])
        leaf |= (bins[best[1]] > best[2]).astype(np.intp) << level
    return tree, leaf
