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
    """Settings of the training: trees, learning rate, ridge on leaves, share of columns a tree may ask about."""

    trees: int = 360
    rate: float = 0.06
    ridge: float = 3.0
    columns: float = 0.25
    seed: int = 1


def fit(rows: Rows, labels: npt.NDArray[np.bool_], weights: Weights, recipe: Recipe) -> Trees:
    """Trees that separate the labelled rows under log loss; the same input gives the same trees."""
    edges = [_edges(rows[:, column]) for column in range(rows.shape[1])]
    binned = [np.searchsorted(edge, rows[:, column], side="left") for column, edge in enumerate(edges)]
    bins = np.stack(binned).astype(np.intp)
    draw = np.random.default_rng(recipe.seed)
    margin = np.zeros(len(rows))
    columns: list[int] = []
    bounds: list[int] = []
    leaves: list[int] = []
    for _ in range(recipe.trees):
        odds = 1 / (1 + np.exp(-margin))
        slope = weights * (odds - labels)
        curve = weights * odds * (1 - odds)
        allowed = draw.choice(rows.shape[1], max(1, int(rows.shape[1] * recipe.columns)), replace=False)
        tree, leaf = _grow(bins, np.sort(allowed), slope, curve, recipe.ridge)
        slopes = np.bincount(leaf, slope, minlength=1 << DEPTH)
        curves = np.bincount(leaf, curve, minlength=1 << DEPTH)
        values = np.rint(-recipe.rate * slopes / (curves + recipe.ridge) * UNIT).astype(np.int64)
        margin += values[leaf] / UNIT
        for question in tree:
            edge = edges[question.column]
            above_all = question.floor >= len(edge)
            columns.append(question.column)
            bounds.append(int(rows[:, question.column].max() if above_all else edge[question.floor]))
        leaves += values.tolist()
    return Trees(tuple(columns), tuple(bounds), tuple(leaves), 0)


def _edges(values: Rows) -> npt.NDArray[np.int32]:
    """Upper bounds of at most BINS bins, without the last."""
    distinct = np.unique(values)
    if len(distinct) > BINS:
        distinct = np.unique(np.quantile(values[values > distinct[0]], np.arange(BINS) / BINS, method="lower"))
        distinct = np.unique(np.append(distinct, values.min()))[:BINS]
    return distinct[:-1].astype(np.int32) if len(distinct) > 1 else distinct.astype(np.int32)


class _Question(NamedTuple):
    """A question of a tree: is the value of `column` in a bin above `floor`?"""

    column: int
    floor: int


def _grow(
    bins: npt.NDArray[np.intp], allowed: npt.NDArray[np.int64], slope: Weights, curve: Weights, ridge: float
) -> tuple[list[_Question], npt.NDArray[np.intp]]:
    """The questions of one tree, and the leaf of every row. `bins` has the shape [columns, rows]."""
    leaf = np.zeros(bins.shape[1], dtype=np.intp)
    tree: list[_Question] = []
    for level in range(DEPTH):
        most = -1.0
        best = _Question(0, 0)
        shape = (1 << level, BINS + 1)
        for column in allowed:
            cell = leaf * (BINS + 1) + bins[column]
            slope_below = np.bincount(cell, slope, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=1)
            curve_below = np.bincount(cell, curve, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=1)
            slope_above = slope_below[:, -1:] - slope_below
            curve_above = curve_below[:, -1:] - curve_below
            gain = (slope_below**2 / (curve_below + ridge) + slope_above**2 / (curve_above + ridge)).sum(axis=0)
            floor = int(gain[:-1].argmax())
            if gain[floor] > most:
                most = float(gain[floor])
                best = _Question(int(column), floor)
        tree.append(best)
        leaf |= (bins[best.column] > best.floor).astype(np.intp) << level
    return tree, leaf
