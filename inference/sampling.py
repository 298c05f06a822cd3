"""Drawing tokens: counter-based random numbers keyed by request and position. No torch."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from inference.types import SamplingParams


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


def choose(logits: NDArray[np.float32], sampling: SamplingParams, draw: float) -> int:
    """The token id drawn from ``[vocab]`` logits; ``draw`` in [0, 1) is used unless greedy.

    Order: temperature, then the ``top_k`` most likely, then the smallest set whose share reaches
    ``top_p``. Ties go to the smaller id. Logits may hold -inf but no NaN.
    """
    if sampling.temperature == 0.0 or sampling.top_k == 1:
        return int(np.argmax(logits))
    scaled = logits.astype(np.float64)
    # Shift before dividing: a tiny temperature would otherwise overflow to inf - inf.
    scaled = (scaled - scaled.max()) / sampling.temperature
    order = np.argsort(-scaled, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    share = np.cumsum(np.exp(scaled[order]))
    kept = len(order)
    if sampling.top_p < 1.0:
        kept = int(np.searchsorted(share, sampling.top_p * share[-1])) + 1
    share = share[:kept]
    index = int(np.searchsorted(share, draw * share[-1], side="right"))
    return int(order[min(index, len(share) - 1)])
