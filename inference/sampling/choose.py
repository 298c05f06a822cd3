"""The next token from a row of logits on the host: penalties, filters, one draw, log-probabilities. No torch.

Random numbers are counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), keyed by request
and position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.types import IMPOSSIBLE, LOGPROB_STEP, SamplingParams, TokenLogprob

Logits: TypeAlias = NDArray[np.float32]
"""Of one row: ``[vocab]``."""
Ids: TypeAlias = NDArray[np.intp]
"""Token ids: ``[n]``."""
Weights: TypeAlias = NDArray[np.float64]
"""Unnormalised probabilities: ``[n]``."""


def uniform(request_id: str, seed: int | None, position: int) -> float:
    """A number in [0, 1) fixed by its arguments alone (BLAKE2b of them, 53 bits).

    A counter instead of a generator's state: the draw at a position does not depend on batch
    neighbours, on earlier draws or on which worker runs the request.
    """
    name = request_id.encode()
    counter = f"|{'' if seed is None else seed}|{position}".encode()
    digest = hashlib.blake2b(
        len(name).to_bytes(4, "big") + name + counter, digest_size=8, person=b"sluice.sample"
    ).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53


def adjusted(logits: Logits, sampling: SamplingParams, tokens: Sequence[int], prompt: int) -> Logits:
    """Logits after bias and penalties; the same array where the request asks for neither.

    ``tokens`` are those of the prompt, ``prompt`` many, then those of the output.
    Repetition (Keskar et al. 2019, CTRL): positive logits of tokens seen in prompt or output are divided by it,
    negative ones multiplied. Frequency and presence: subtracted per occurrence, and once, for tokens of the output.
    """
    plain = sampling.repetition_penalty == 1.0 and not (sampling.presence_penalty or sampling.frequency_penalty)
    if plain and not sampling.logit_bias:
        return logits
    row = logits.copy()
    with np.errstate(over="ignore"):
        _adjust(row, sampling, tokens, prompt)
    # an infinity would leave no weight that is a number to draw by
    return np.minimum(row, np.finfo(np.float32).max, out=row)


def _adjust(row: Logits, sampling: SamplingParams, tokens: Sequence[int], prompt: int) -> None:
    if sampling.repetition_penalty != 1.0:
        seen = np.unique(np.array(tokens, dtype=np.intp))
        values = row[seen]
        row[seen] = np.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        output, times = np.unique(np.array(tokens[prompt:], dtype=np.intp), return_counts=True)
        penalties = sampling.presence_penalty + sampling.frequency_penalty * times
        row[output] -= penalties.astype(np.float32)
    for token, bias in sampling.logit_bias:
        row[token] += np.float32(bias)


def is_greedy(sampling: SamplingParams) -> bool:
    """True where the likeliest token is taken, so that no number is drawn."""
    return sampling.temperature == 0.0 or sampling.top_k == 1


def choose(logits: Logits, sampling: SamplingParams, draw: float) -> int:
    """Token id drawn from logits; ``draw`` in [0, 1) is used unless greedy.

    Ties go to the smaller id. Logits may hold -inf but no NaN.
    """
    if is_greedy(sampling):
        return int(np.argmax(logits))
    return pick(*candidates(logits, sampling), draw)


def candidates(logits: Logits, sampling: SamplingParams) -> tuple[Ids, Weights]:
    """Ids that may be drawn, ``[n]``, and their weights ``[n]``, which need not sum to one; not for temperature 0.

    Order: temperature, the ``top_k`` most likely, the smallest set whose share reaches ``top_p`` (nucleus sampling,
    Holtzman et al. 2020), then those at least ``min_p`` times as likely as the likeliest.
    """
    wide = logits.astype(np.float64)
    # shifted before the division: a tiny temperature would otherwise overflow to inf - inf
    with np.errstate(over="ignore"):
        weights = np.exp((wide - wide.max()) / sampling.temperature)
    ids = np.flatnonzero(weights)
    if 0 < sampling.top_k < len(ids):
        least = np.partition(logits[ids], -sampling.top_k)[-sampling.top_k]
        ids = _likeliest_first(ids[logits[ids] >= least], logits)[: sampling.top_k]
    if sampling.top_p < 1.0:
        total = weights[ids].sum()
        # all that weigh less than this stay under 1 - top_p together, so they need not be sorted
        least_weight = (1.0 - sampling.top_p) * total / len(ids)
        ids = _likeliest_first(ids[weights[ids] >= least_weight], logits)
        count = int(np.searchsorted(np.cumsum(weights[ids]), sampling.top_p * total)) + 1
        ids = ids[:count]
    if sampling.min_p > 0.0:
        # the likeliest weighs 1
        ids = ids[weights[ids] >= sampling.min_p]
    return ids, weights[ids]


def pick(ids: Ids, weights: Weights, draw: float) -> int:
    """The one of ``[n]`` ids on which ``draw`` in [0, 1) falls, by inversion of the cumulative ``[n]`` weights."""
    ends = np.cumsum(weights)
    index = int(np.searchsorted(ends, draw * ends[-1], side="right"))
    return int(ids[min(index, len(ids) - 1)])


def logprobs(logits: Logits, token: int, top: int) -> TokenLogprob:
    """Log-probabilities of the drawn token and of the ``top`` likeliest, by the model's own logits at temperature 1.

    Rounded to ``LOGPROB_STEP``: exact ones give away the model's last layer (Carlini et al. 2024).
    """
    shifted = logits.astype(np.float64) - float(logits.max())
    values = shifted - np.log(np.exp(shifted).sum())
    likeliest = _likeliest_first(np.argpartition(-logits, top - 1)[:top], logits)
    return TokenLogprob(token, _rounded(values[token]), tuple((int(one), _rounded(values[one])) for one in likeliest))


def _rounded(value: float) -> float:
    # a banned token has no likelihood at all; no finite number says so, and JSON has no infinity
    return round(round(float(value) / LOGPROB_STEP) * LOGPROB_STEP, 6) if np.isfinite(value) else IMPOSSIBLE


def _likeliest_first(ids: Ids, logits: Logits) -> Ids:
    return ids[np.argsort(-logits[ids], kind="stable")]
