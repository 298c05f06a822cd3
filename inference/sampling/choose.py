"""Drawing tokens: counter-based random numbers keyed by request and position. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inference.types import IMPOSSIBLE, LOGPROB_STEP, SamplingParams, TokenLogprob


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


def adjusted(
    logits: NDArray[np.float32], sampling: SamplingParams, tokens: Sequence[int], prompt: int
) -> NDArray[np.float32]:
    """``[vocab]`` logits after bias and penalties; the same array where the request asks for neither.

    ``tokens`` are those of the prompt, ``prompt`` many, and the output so far.
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


def _adjust(row: NDArray[np.float32], sampling: SamplingParams, tokens: Sequence[int], prompt: int) -> None:
    if sampling.repetition_penalty != 1.0:
        seen = np.unique(np.array(tokens, dtype=np.intp))
        values = row[seen]
        row[seen] = np.where(values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty)
    if sampling.presence_penalty or sampling.frequency_penalty:
        said, times = np.unique(np.array(tokens[prompt:], dtype=np.intp), return_counts=True)
        row[said] -= (sampling.presence_penalty + sampling.frequency_penalty * times).astype(np.float32)
    for token, bias in sampling.logit_bias:
        row[token] += np.float32(bias)


def choose(logits: NDArray[np.float32], sampling: SamplingParams, draw: float) -> int:
    """The token id drawn from ``[vocab]`` logits; ``draw`` in [0, 1) is used unless greedy.

    Ties go to the smaller id. Logits may hold -inf but no NaN.
    """
    if sampling.temperature == 0.0 or sampling.top_k == 1:
        return int(np.argmax(logits))
    return pick(*shortlist(logits, sampling), draw)


def shortlist(logits: NDArray[np.float32], sampling: SamplingParams) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The ids that may be drawn and their weights, which need not sum to one; not for temperature 0.

    Order: temperature, the ``top_k`` most likely, the smallest set whose share reaches ``top_p``, then those at least
    ``min_p`` times as likely as the likeliest.
    """
    scaled = logits.astype(np.float64)
    # Shift before dividing: a tiny temperature would otherwise overflow to inf - inf.
    with np.errstate(over="ignore"):
        weights = np.exp((scaled - scaled.max()) / sampling.temperature)
    ids = np.flatnonzero(weights)
    if 0 < sampling.top_k < len(ids):
        least = np.partition(logits[ids], -sampling.top_k)[-sampling.top_k]
        ids = _likeliest_first(ids[logits[ids] >= least], logits)[: sampling.top_k]
    if sampling.top_p < 1.0:
        total = weights[ids].sum()
        # All that is below this together stays under 1 - top_p, so it need not be sorted.
        ids = _likeliest_first(ids[weights[ids] >= (1.0 - sampling.top_p) * total / len(ids)], logits)
        ids = ids[: int(np.searchsorted(np.cumsum(weights[ids]), sampling.top_p * total)) + 1]
    if sampling.min_p > 0.0:
        # the likeliest weighs 1
        ids = ids[weights[ids] >= sampling.min_p]
    return ids, weights[ids]


def pick(ids: NDArray[np.intp], weights: NDArray[np.float64], draw: float) -> int:
    """The id on which ``draw`` in [0, 1) falls."""
    share = np.cumsum(weights)
    index = int(np.searchsorted(share, draw * share[-1], side="right"))
    return int(ids[min(index, len(ids) - 1)])


def logprobs(logits: NDArray[np.float32], token: int, most: int) -> TokenLogprob:
    """Log-probabilities of the drawn token and the ``most`` likeliest, of the model's own logits at temperature 1.

    Rounded to ``LOGPROB_STEP``: exact ones give away the model's last layer (Carlini et al. 2024).
    """
    scaled = logits.astype(np.float64) - float(logits.max())
    values = scaled - np.log(np.exp(scaled).sum())
    top = _likeliest_first(np.argpartition(-logits, most - 1)[:most], logits)
    return TokenLogprob(token, _coarse(values[token]), tuple((int(one), _coarse(values[one])) for one in top))


def _coarse(value: float) -> float:
    # a banned token has no likelihood at all; no finite number says so, and JSON has no infinity
    return round(round(float(value) / LOGPROB_STEP) * LOGPROB_STEP, 6) if np.isfinite(value) else IMPOSSIBLE


def _likeliest_first(ids: NDArray[np.intp], logits: NDArray[np.float32]) -> NDArray[np.intp]:
    return ids[np.argsort(-logits[ids], kind="stable")]
