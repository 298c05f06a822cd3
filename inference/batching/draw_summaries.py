"""Draws from summaries of rows that stay on a device, all rows at once. No torch.

The tokens that may be drawn and their likelihoods are those of ``inference.sampling.choose``; a draw walks through them
in another order (likeliest first), so the same number may pick another token than from a whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.ports import TOURNAMENT_TOP, WHOLE_ROW, LogitsQuery, RowSummary
from inference.sampling.choose import candidates, choose, is_greedy
from inference.types import SamplingParams
from inference.watermark.keys import MarkKey
from inference.watermark.tournament import MarkedRow, draw_marked, reweigh

FILTER_TOP = 256
"""Likeliest tokens that are asked for where top-k, top-p or min-p cut off the others."""
Ids = NDArray[np.intp]
Weights = NDArray[np.float64]
Flags = NDArray[np.bool_]


def query_for(sampling: SamplingParams, draw: Callable[[], float], *, marked: bool) -> LogitsQuery:
    """The part of a row that a draw needs; ``draw`` gives the number in [0, 1) and is called only where that counts."""
    penalties = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
    if penalties or sampling.logit_bias or sampling.logprobs or sampling.top_k > FILTER_TOP:
        return WHOLE_ROW
    if is_greedy(sampling):
        return LogitsQuery(whole=False)
    top = TOURNAMENT_TOP if marked else 0
    if _is_filtered(sampling):
        top = FILTER_TOP
    return LogitsQuery(False, sampling.temperature, draw(), top)


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One row to draw from by ``draw`` in [0, 1); marked by ``key`` with ``context``, where there is a key."""

    name: str
    summary: RowSummary
    sampling: SamplingParams
    draw: float
    context: tuple[int, ...] = ()
    key: MarkKey | None = None


def draw_summaries(rows: Sequence[SummaryRow]) -> dict[str, int]:
    """Draw the token of each row, by name; every summary holds top tokens."""
    if not rows:
        return {}
    ids, weights = _stacked(rows)
    filtered = np.array([_is_filtered(row.sampling) for row in rows])
    kept, complete = _filter(rows, weights)
    # of an unfiltered row only these compete; the device has drawn from the others
    kept[~filtered, TOURNAMENT_TOP:] = False
    weights[~kept] = 0.0
    _mark(rows, ids, weights)
    ends = weights.cumsum(axis=1)
    totals = np.where(filtered, ends[:, -1], [row.summary.exp_sum for row in rows])
    targets = totals * [row.draw for row in rows]
    index = (ends <= targets[:, None]).sum(axis=1)
    last = kept.sum(axis=1) - 1
    tokens: dict[str, int] = {}
    for place, row in enumerate(rows):
        if filtered[place] and not complete[place]:
            tokens[row.name] = _draw_from_whole_row(row)
        elif filtered[place] or index[place] <= last[place]:
            tokens[row.name] = int(ids[place, min(index[place], last[place])])
        else:
            tokens[row.name] = row.summary.drawn
    return tokens


def _is_filtered(sampling: SamplingParams) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _stacked(rows: Sequence[SummaryRow]) -> tuple[Ids, Weights]:
    """Ids and weights ``exp((logit - max) / T)``, each ``[rows, k]``; zeros beyond the top tokens of a row."""
    width = max(len(row.summary.ids) for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.intp)
    weights = np.full((len(rows), width), -np.inf)
    for place, row in enumerate(rows):
        count = len(row.summary.ids)
        ids[place, :count] = row.summary.ids
        weights[place, :count] = row.summary.logits
    with np.errstate(over="ignore"):
        weights -= np.array([row.summary.max_logit for row in rows])[:, None]
        weights /= np.array([row.sampling.temperature for row in rows])[:, None]
    return ids, np.exp(weights, out=weights)


def _filter(rows: Sequence[SummaryRow], weights: Weights) -> tuple[Flags, Flags]:
    """Entries that may be drawn, ``[rows, k]``, and rows whose summary holds all that may, ``[rows]``."""
    size = np.array([len(row.summary.ids) for row in rows])
    top_k = np.array([row.sampling.top_k or np.iinfo(np.int64).max for row in rows])
    top_p = np.array([row.sampling.top_p for row in rows])
    min_p = np.array([row.sampling.min_p for row in rows])
    kept = np.arange(weights.shape[1]) < np.minimum(top_k, size)[:, None]
    ranked = np.where(kept, weights, 0.0)
    before = ranked.cumsum(axis=1) - ranked
    total = np.where(top_k <= size, ranked.sum(axis=1), [row.summary.exp_sum for row in rows])
    kept &= (before < (top_p * total)[:, None]) | (top_p == 1.0)[:, None]
    kept &= weights >= min_p[:, None]
    return kept, (kept.sum(axis=1) < size) | (top_k <= size)


def _mark(rows: Sequence[SummaryRow], ids: Ids, weights: Weights) -> None:
    """Hold the tournaments of the rows that have a key, on their ``[rows, k]`` weights; each row keeps its sum."""
    marked = [(place, row.context, row.key) for place, row in enumerate(rows) if row.key is not None]
    if not marked:
        return
    places, contexts, keys = zip(*marked, strict=True)
    chosen = list(places)
    top = slice(TOURNAMENT_TOP)
    weights[chosen, top] = reweigh(ids[chosen, top], weights[chosen, top], contexts, keys)


def _draw_from_whole_row(row: SummaryRow) -> int:
    logits = row.summary.fetch()
    if row.key is None:
        return choose(logits, row.sampling, row.draw)
    ids, weights = candidates(logits, row.sampling)
    return draw_marked([MarkedRow(row.name, ids, weights, row.context, row.key, row.draw)])[row.name]
