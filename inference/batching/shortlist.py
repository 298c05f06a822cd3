"""Drawing from what a device tells of its rows, all rows at once. No torch.

The tokens that may be drawn and their likelihoods are those of ``inference.sampling``; the order in which a draw walks
through them is another (likeliest first), so the same number may pick another token than from a whole row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.ports import SHORT, WHOLE, LogitsQuery, Shortlist
from inference.sampling.choose import choose, shortlist
from inference.types import SamplingParams
from inference.watermark.keys import MarkKey
from inference.watermark.tournament import MarkedRow, draw_marked, reweigh

LONG = 256
"""Likeliest tokens that are asked for where the least likely are cut off."""
Weights = NDArray[np.float64]
Flags = NDArray[np.bool_]


def ask(sampling: SamplingParams, draw: Callable[[], float], *, marked: bool) -> LogitsQuery:
    """What must be known of a row to draw from it; ``draw`` gives the number in [0, 1) if it is needed for that."""
    penalties = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
    if penalties or sampling.logit_bias or sampling.logprobs or sampling.top_k > LONG:
        return WHOLE
    if sampling.temperature == 0.0 or sampling.top_k == 1:
        return LogitsQuery(whole=False)
    return LogitsQuery(False, sampling.temperature, draw(), LONG if _cuts(sampling) else SHORT if marked else 0)


@dataclass(frozen=True, slots=True)
class ShortRow:
    """One row to draw from by ``draw`` in [0, 1); marked by ``key`` with ``context``, where there is one."""

    name: str
    row: Shortlist
    sampling: SamplingParams
    draw: float
    context: tuple[int, ...] = ()
    key: MarkKey | None = None


def draw_short(rows: Sequence[ShortRow]) -> dict[str, int]:
    """The token of each row by name; all have a reach."""
    tokens: dict[str, int] = {}
    listed = list(rows)
    if not listed:
        return tokens
    ids, weights = _table(listed)
    cut = np.array([_cuts(row.sampling) for row in listed])
    kept, enough = _kept(listed, weights)
    # of those drawn among all, only the first compete; the device has drawn from the others
    kept[~cut, SHORT:] = False
    weights[~kept] = 0.0
    _mark(listed, ids, weights)
    share = weights.cumsum(axis=1)
    total = np.where(cut, share[:, -1], [row.row.total for row in listed])
    index = (share <= (total * [row.draw for row in listed])[:, None]).sum(axis=1)
    last = kept.sum(axis=1) - 1
    for place, row in enumerate(listed):
        if cut[place] and not enough[place]:
            tokens[row.name] = _from_whole(row)
        elif cut[place] or index[place] <= last[place]:
            tokens[row.name] = int(ids[place, min(index[place], last[place])])
        else:
            tokens[row.name] = row.row.drawn
    return tokens


def _cuts(sampling: SamplingParams) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0


def _table(rows: Sequence[ShortRow]) -> tuple[NDArray[np.intp], Weights]:
    """``[rows, k]`` ids and weights relative to the likeliest; zeros beyond a row's own reach."""
    width = max(len(row.row.ids) for row in rows)
    ids = np.zeros((len(rows), width), dtype=np.intp)
    weights = np.full((len(rows), width), -np.inf)
    for place, row in enumerate(rows):
        ids[place, : len(row.row.ids)] = row.row.ids
        weights[place, : len(row.row.ids)] = row.row.logits
    with np.errstate(over="ignore"):
        weights -= np.array([row.row.peak for row in rows])[:, None]
        weights /= np.array([row.sampling.temperature for row in rows])[:, None]
    return ids, np.exp(weights, out=weights)


def _kept(rows: Sequence[ShortRow], weights: Weights) -> tuple[Flags, Flags]:
    """Which entries may be drawn, and which rows show all that may: ``[rows, k]`` and ``[rows]``."""
    size = np.array([len(row.row.ids) for row in rows])
    most = np.array([row.sampling.top_k or np.iinfo(np.int64).max for row in rows])
    share = np.array([row.sampling.top_p for row in rows])
    least = np.array([row.sampling.min_p for row in rows])
    kept = np.arange(weights.shape[1]) < np.minimum(most, size)[:, None]
    ranked = np.where(kept, weights, 0.0)
    before = ranked.cumsum(axis=1) - ranked
    total = np.where(most <= size, ranked.sum(axis=1), [row.row.total for row in rows])
    kept &= (before < (share * total)[:, None]) | (share == 1.0)[:, None]
    kept &= weights >= least[:, None]
    return kept, (kept.sum(axis=1) < size) | (most <= size)


def _mark(rows: Sequence[ShortRow], ids: NDArray[np.intp], weights: Weights) -> None:
    """Let the likeliest of the rows that are marked compete; each keeps its sum."""
    places = [place for place, row in enumerate(rows) if row.key is not None]
    if places:
        keys = [key for row in rows if (key := row.key) is not None]
        contexts = [rows[place].context for place in places]
        weights[places, :SHORT] = reweigh(ids[places, :SHORT], weights[places, :SHORT], contexts, keys)


def _from_whole(row: ShortRow) -> int:
    whole = row.row.whole()
    if row.key is None:
        return choose(whole, row.sampling, row.draw)
    found = shortlist(whole, row.sampling)
    return draw_marked([MarkedRow(row.name, *found, row.context, row.key, row.draw)])[row.name]
