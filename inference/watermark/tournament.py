"""Tournament sampling: Dathathri et al., "Scalable watermarking for identifying large language model outputs"
(Nature 634, 2024), two-leaf tournaments in their closed form. No torch.

One layer turns probabilities p into ``p(x) * (1 + g(x) - sum over y of p(y) g(y))``: of two tokens drawn from p, the
one whose bit g is set wins. Over random bits each layer's expectation is p again, so text of one key is marked and text
over all keys is distributed as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.sampling.choose import pick
from inference.watermark.keys import CONTEXT, WORD, Bits, MarkKey, Tokens, bits_of, with_token

CANDIDATES = 64
"""Most likely tokens that compete; the rest keep their probabilities."""
_DUST = 1e-60
_DEPTH = 16
"""Rows into which a row of weights is folded to find the largest."""
Weights = NDArray[np.float64]
Ids = NDArray[np.intp]


def compete(weights: Weights, bits: Bits) -> Weights:
    """``[rows, k]`` weights after the tournaments of ``[rows, k, LAYERS]`` bits; each row keeps its sum.

    A row of zeros stays zeros.
    """
    total = weights.sum(axis=1, keepdims=True)
    share: Weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    # numbers near the smallest that a float can hold cost a hundred times as much to multiply
    share[share < _DUST] = 0.0
    won = np.empty_like(share)
    # layers first: each step then reads one contiguous block
    for layer in np.ascontiguousarray(np.moveaxis(bits, 2, 0)):
        np.multiply(share, layer, out=won)
        share *= 1.0 - won.sum(axis=1, keepdims=True)
        share += won
    marked: Weights = share * total
    return marked


def reweigh(candidates: Ids, weights: Weights, contexts: Sequence[Sequence[int]], keys: Sequence[MarkKey]) -> Weights:
    """Marked weights of ``[rows, k]`` candidates, for the sampler's own draw. Contexts are the last four output tokens.

    The sum of each row stays, so tokens outside the candidates keep their probabilities.
    """
    mixed = _encrypted(np.array(contexts, dtype=WORD).reshape(-1, CONTEXT), keys)
    blocks = with_token(np.repeat(mixed[:, None], candidates.shape[1], axis=1), candidates.astype(WORD))
    return compete(weights, bits_of(_encrypted(blocks, keys)))


def _encrypted(blocks: Tokens, keys: Sequence[MarkKey]) -> Tokens:
    """Each row of ``[rows, ..., 4]`` under its own key, those of one key at once: a call costs more than a block."""
    rows: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(id(key), []).append(row)
    found = np.empty_like(blocks)
    for same in rows.values():
        chosen = blocks[same]
        found[same] = keys[same[0]].encrypt(chosen.reshape(-1, chosen.shape[-1])).reshape(chosen.shape)
    return found


def tournament(candidates: Ids, probabilities: Weights, context: Sequence[int], key: MarkKey, draw: float) -> int:
    """The token of ``[k]`` candidates that one draw in [0, 1) picks after the tournament."""
    return pick(candidates, reweigh(candidates[None], probabilities[None], [context], [key])[0], draw)


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One row to draw from: ``[n]`` ids and weights of any length, and what marks it; ``draw`` in [0, 1)."""

    name: str
    ids: Ids
    weights: Weights
    context: Sequence[int]
    key: MarkKey
    draw: float


def draw_marked(rows: Sequence[MarkedRow]) -> dict[str, int]:
    """The token of each row by name, all tournaments held at once.

    The most likely ``CANDIDATES`` compete; the rest keep their probabilities. Writes into the rows' weights.
    """
    if not rows:
        return {}
    candidates = np.zeros((len(rows), CANDIDATES), dtype=np.intp)
    weights = np.zeros((len(rows), CANDIDATES))
    tops = [_likeliest(row.weights) for row in rows]
    for index, (row, top) in enumerate(zip(rows, tops, strict=True)):
        candidates[index, : len(top)], weights[index, : len(top)] = row.ids[top], row.weights[top]
    marked = reweigh(candidates, weights, [row.context for row in rows], [row.key for row in rows])
    tokens = {}
    for index, (row, top) in enumerate(zip(rows, tops, strict=True)):
        row.weights[top] = marked[index, : len(top)]
        tokens[row.name] = pick(row.ids, row.weights, row.draw)
    return tokens


def _likeliest(weights: Weights) -> Ids:
    """Places of the ``CANDIDATES`` largest, of equal ones any."""
    columns = len(weights) // _DEPTH
    if columns <= CANDIDATES:
        return _largest(weights) if len(weights) > CANDIDATES else np.arange(len(weights))
    # so many columns peak no lower, hence so many weights are no smaller: the rest need not be put in order
    peaks = weights[: columns * _DEPTH].reshape(_DEPTH, columns).max(axis=0)
    near = np.flatnonzero(weights >= np.partition(peaks, -CANDIDATES)[-CANDIDATES])
    return near[_largest(weights[near])]


def _largest(weights: Weights) -> Ids:
    return np.argpartition(weights, -CANDIDATES)[-CANDIDATES:]


def reference(probabilities: Sequence[float], bits: Sequence[Sequence[int]]) -> list[float]:
    """What ``compete`` computes, read off the paper: who wins each match of two tokens, layer by layer. Slow."""
    share = [p / sum(probabilities) for p in probabilities]
    tokens = range(len(share))
    for layer in range(len(bits[0])):
        won = [0.0] * len(share)
        for one in tokens:
            for other in tokens:
                match = share[one] * share[other]
                if bits[one][layer] == bits[other][layer]:
                    won[one] += match / 2
                    won[other] += match / 2
                else:
                    won[one if bits[one][layer] else other] += match
        share = [part / sum(won) for part in won]
    return share
