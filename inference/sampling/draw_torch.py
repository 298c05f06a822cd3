"""What a device tells of its rows of logits. In torch; ``draw_triton`` draws faster where it is CUDA.

A row's weights are summed in chunks first, then one chunk is looked into: the whole row is read once and nothing as
wide as the vocabulary is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference.ports import SHORT, LogitsQuery, LogitsRow, Shortlist

CHUNK = 1024
Draw = Callable[[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]
COLDEST = 1e-30
"""Colder than this, float32 has no number; all but the likeliest weigh nothing long before."""


def draw_and_topk(logits: Tensor, asks: Sequence[LogitsQuery], draw: Draw) -> list[Shortlist]:
    """What ``asks`` want to know of ``[rows, vocab]`` logits; ``draw`` is ``draw_rows`` or does the same.

    ``logits`` must stay as they are while one of the answers is held.
    """
    reach = min(max(ask.reach for ask in asks), logits.shape[1])
    peaks, best = logits.max(-1)
    if all(ask.temperature == 0.0 for ask in asks):
        # the sum at temperature 0 counts the likeliest alone, and nobody asks for it
        told = _fetch([best[:, None], peaks[:, None], peaks[:, None]])
    else:
        peaks = peaks.float()
        listed = logits.topk(reach, dim=-1) if reach else None
        values = logits[:, :0].float() if listed is None else listed.values.float()
        ids = best[:, None][:, :0] if listed is None else listed.indices
        asked = _send(logits, [[ask.temperature, ask.draw, float(ask.reach > 0)] for ask in asks])
        drawn, total = draw(logits, peaks, best, (ids[:, :SHORT], values[:, :SHORT]), asked)
        told = _fetch([drawn[:, None], peaks[:, None], total[:, None], ids, values])
    drawn_told, peaks_told, totals = told[:, 0].astype(np.intp).tolist(), told[:, 1].tolist(), told[:, 2].tolist()
    ids_told, values_told = told[:, 3 : 3 + reach].astype(np.intp), told[:, 3 + reach :]
    none = (ids_told[0, :0], values_told[0, :0])
    found = []
    for index, ask in enumerate(asks):
        count = ask.reach
        listed_ids, listed_values = (ids_told[index, :count], values_told[index, :count]) if count else none
        whole = partial(fetch_row, logits, index)
        found.append(Shortlist(drawn_told[index], peaks_told[index], totals[index], listed_ids, listed_values, whole))
    return found


def fetch_row(logits: Tensor, index: int) -> LogitsRow:
    """One row as numpy."""
    row: LogitsRow = logits[index].float().cpu().numpy()
    return row


def draw_rows(
    logits: Tensor, peaks: Tensor, best: Tensor, top: tuple[Tensor, Tensor], asked: Tensor
) -> tuple[Tensor, Tensor]:
    """The drawn tokens, and the sums of all weights.

    ``asked``: float64 temperature, draw, and whether the likeliest (``top``: ids and logits) are drawn elsewhere.
    """
    greedy, goal, reaching = asked[:, 0] == 0.0, asked[:, 1], asked[:, 2] > 0.0
    heats = asked[:, 0].masked_fill(greedy, 1.0).clamp(min=COLDEST)
    cold = heats.float()
    sums = _chunk_weights(logits, peaks, cold).double()
    total = sums.sum(-1)
    taken = ((top[1] - peaks[:, None]) / cold[:, None]).exp().double() * reaching[:, None]
    sums = sums.scatter_add(1, top[0] // CHUNK, -taken).clamp(min=0.0)
    edges = sums.cumsum(-1)
    goal = (goal * total - taken.sum(-1)).clamp(min=0.0)
    # rounding may have put the goal at the very end: no further than the last chunk that weighs anything
    chunk = (edges <= torch.minimum(goal, edges[:, -1] * (1 - 1e-12))[:, None]).sum(-1, keepdim=True)
    chunk = chunk.clamp(max=edges.shape[1] - 1)
    within = goal[:, None] - edges.gather(1, chunk) + sums.gather(1, chunk)
    spots = chunk * CHUNK + torch.arange(CHUNK, device=logits.device)
    inside = spots < logits.shape[1]
    piece = logits.gather(1, spots.clamp(max=logits.shape[1] - 1)).float()
    weights = ((piece - peaks[:, None]) / cold[:, None]).exp().double() * inside
    place = (top[0] - chunk * CHUNK).clamp(-1, CHUNK)
    here = (place >= 0) & (place < CHUNK) & reaching[:, None]
    # one column more for those that stand elsewhere
    left = functional.pad(weights, (0, 1)).scatter(1, place.masked_fill(~here, CHUNK), 0.0)[:, :CHUNK]
    share = left.cumsum(-1)
    index = (share <= torch.minimum(within, share[:, -1:] * (1 - 1e-12))).sum(-1, keepdim=True)
    drawn = (chunk * CHUNK + index.clamp(max=CHUNK - 1))[:, 0]
    return torch.where(greedy | (share[:, -1] <= 0.0), best, drawn), total


def _chunk_weights(logits: Tensor, peaks: Tensor, heats: Tensor) -> Tensor:
    """Sums of ``exp((logits - peak) / heat)`` over each ``CHUNK`` entries: ``[rows, chunks]``."""
    rows, size = logits.shape
    padded = functional.pad(logits.float(), (0, -size % CHUNK), value=-torch.inf).view(rows, -1, CHUNK)
    return ((padded - peaks[:, None, None]) / heats[:, None, None]).exp().sum(-1)


def _send(near: Tensor, values: list[list[float]]) -> Tensor:
    held = torch.tensor(values, dtype=torch.float64)
    return held.pin_memory().to(near.device, non_blocking=True) if near.is_cuda else held


def _fetch(parts: list[Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Columns side by side as float64, in one transfer; token ids are exact in it."""
    packed = torch.cat([part.double() for part in parts], dim=1)
    if not packed.is_cuda:
        return packed.numpy()
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    torch.cuda.current_stream(packed.device).synchronize()
    return host.numpy()
