"""Tournament sampling: Dathathri et al., "Scalable watermarking for identifying large language model outputs"
(Nature 634, 2024), two-leaf tournaments in their closed form. No torch.

One layer l turns probabilities p into ``p(x) * (1 + g_l(x) - sum over y of p(y) g_l(y))``: of two tokens drawn from p,
the one whose bit g_l is set wins. Over random bits each layer's expectation is p again, so text of one key is marked
and text over all keys is distributed as before.
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
_NEGLIGIBLE = 1e-60
_DEPTH = 16
"""Rows into which a row of weights is folded to find the largest."""
Weights = NDArray[np.float64]
Ids = NDArray[np.intp]


def compete(weights: Weights, bits: Bits) -> Weights:
    """``[rows, k]`` weights after the tournaments of ``[rows, k, LAYERS]`` bits; each row keeps its sum.

    A row of zeros stays zeros.
    """
    total = weights.sum(axis=1, keepdims=True)
    p: Weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    # numbers near the smallest that a float can hold cost a hundred times as much to multiply
    p[p < _NEGLIGIBLE] = 0.0
    p_g = np.empty_like(p)
    # layers first: each step then reads one contiguous block of bits g, [rows, k]
    for g in np.ascontiguousarray(np.moveaxis(bits, 2, 0)):
        np.multiply(p, g, out=p_g)
        p *= 1.0 - p_g.sum(axis=1, keepdims=True)
        p += p_g
    marked: Weights = p * total
    return marked


def reweigh(candidates: Ids, weights: Weights, contexts: Sequence[Sequence[int]], keys: Sequence[MarkKey]) -> Weights:
    """Marked weights ``[rows, k]`` of ``[rows, k]`` candidates, for the sampler's own draw.

    Contexts are the last four output tokens of each row. The sum of each row stays, so tokens outside the candidates
    keep their probabilities.
    """
    # [rows, 4] context blocks, then [rows, k, 4] blocks with each candidate
    mixed = _encrypted(np.array(contexts, dtype=WORD).reshape(-1, CONTEXT), keys)
    blocks = with_token(np.repeat(mixed[:, None], candidates.shape[1], axis=1), candidates.astype(WORD))
    return compete(weights, bits_of(_encrypted(blocks, keys)))


def _encrypted(blocks: Tokens, keys: Sequence[MarkKey]) -> Tokens:
    """Each row of ``[rows, ..., 4]`` under its own key, rows of one key at once: a call costs more than a block."""
    rows_of_key: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        rows_of_key.setdefault(id(key), []).append(row)
    encrypted = np.empty_like(blocks)
    for rows in rows_of_key.values():
        chosen = blocks[rows]
        encrypted[rows] = keys[rows[0]].encrypt(chosen.reshape(-1, chosen.shape[-1])).reshape(chosen.shape)
    return encrypted


def tournament(candidates: Ids, probabilities: Weights, context: Sequence[int], key: MarkKey, draw: float) -> int:
    """The one of ``[k]`` candidates that a draw in [0, 1) picks after the tournament."""
    marked = reweigh(candidates[None], probabilities[None], [context], [key])[0]
    return pick(candidates, marked, draw)


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One row to draw from: ``[n]`` ids and weights, its context and key; ``draw`` in [0, 1)."""

    name: str
    ids: Ids
    weights: Weights
    context: Sequence[int]
    key: MarkKey
    draw: float


def draw_marked(rows: Sequence[MarkedRow]) -> dict[str, int]:
    """Draw the token of each row, by name, all tournaments at once.

    The most likely ``CANDIDATES`` compete; the rest keep their probabilities. Writes into the rows' weights.
    """
    if not rows:
        return {}
    candidates = np.zeros((len(rows), CANDIDATES), dtype=np.intp)
    weights = np.zeros((len(rows), CANDIDATES))
    tops = [_likeliest(row.weights) for row in rows]
    for index, (row, top) in enumerate(zip(rows, tops, strict=True)):
        candidates[index, : len(top)] = row.ids[top]
        weights[index, : len(top)] = row.weights[top]
    marked = reweigh(candidates, weights, [row.context for row in rows], [row.key for row in rows])
    tokens = {}
    for index, (row, top) in enumerate(zip(rows, tops, strict=True)):
        row.weights[top] = marked[index, : len(top)]
        tokens[row.name] = pick(row.ids, row.weights, row.draw)
    return tokens


def _likeliest(weights: Weights) -> Ids:
    """Indices ``[k]`` of the ``CANDIDATES`` largest of ``[n]`` weights, of equal ones any."""
    columns = len(weights) // _DEPTH
    if columns <= CANDIDATES:
        return _largest(weights) if len(weights) > CANDIDATES else np.arange(len(weights))
    # at least CANDIDATES columns have a maximum no lower than this, hence so many weights are no smaller: only weights
    # down to it need to be put in order
    maxima = weights[: columns * _DEPTH].reshape(_DEPTH, columns).max(axis=0)
    least = np.partition(maxima, -CANDIDATES)[-CANDIDATES]
    near = np.flatnonzero(weights >= least)
    return near[_largest(weights[near])]


def _largest(weights: Weights) -> Ids:
    return np.argpartition(weights, -CANDIDATES)[-CANDIDATES:]


def reference(probabilities: Sequence[float], bits: Sequence[Sequence[int]]) -> list[float]:
    """The result of ``compete`` by the paper's definition: each match of two tokens, layer by layer. Slow."""
    shares = [p / sum(probabilities) for p in probabilities]
    tokens = range(len(shares))
    for layer in range(len(bits[0])):
        won = [0.0] * len(shares)
        for one in tokens:
            for other in tokens:
                match = shares[one] * shares[other]
                if bits[one][layer] == bits[other][layer]:
                    won[one] += match / 2
                    won[other] += match / 2
                else:
                    won[one if bits[one][layer] else other] += match
        shares = [part / sum(won) for part in won]
    return shares
