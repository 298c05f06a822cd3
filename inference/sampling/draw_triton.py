# mypy: ignore-errors
"""Triton kernels that draw tokens from rows of logits: ``inference.sampling.draw_torch.draw_rows`` in two launches.

As ``inference.model.triton_kernels``: imported only where there is a CUDA device, and not Python to a type checker.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from inference.sampling.draw_torch import CHUNK, COLDEST


@triton.jit
def _weigh(logits, peaks, asked, out, size, chunks, COLD: tl.constexpr, WIDTH: tl.constexpr):
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * WIDTH + tl.arange(0, WIDTH)
    value = tl.load(logits + row * size + at, mask=at < size, other=float("-inf")).to(tl.float32)
    heat = tl.load(asked + row * 3)
    heat = tl.maximum(tl.where(heat == 0.0, 1.0, heat), COLD).to(tl.float32)
    weight = tl.exp((value - tl.load(peaks + row)) / heat)
    tl.store(out + row * chunks + chunk, tl.sum(weight, axis=0))


@triton.jit(do_not_specialize=["listed"])
def _pick(
    logits, peaks, best, ids, values, asked, sums, drawn, totals, size, chunks, listed,
    COLD: tl.constexpr, WIDTH: tl.constexpr, CHUNKS: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, CHUNKS)
    given = tl.load(asked + row * 3)
    heat = tl.maximum(tl.where(given == 0.0, 1.0, given), COLD).to(tl.float32)
    most = tl.where(tl.load(asked + row * 3 + 2) > 0.0, listed, 0)
    peak = tl.load(peaks + row)
    mass = tl.load(sums + row * chunks + at, mask=at < chunks, other=0.0).to(tl.float64)
    total = tl.sum(mass, axis=0)
    goal = tl.load(asked + row * 3 + 1) * total
    if TOP > 0:
        k = tl.arange(0, TOP)
        known = k < most
        top = tl.load(ids + row * listed + k, mask=known, other=-1)
        value = tl.load(values + row * listed + k, mask=known, other=float("-inf"))
        taken = tl.exp((value - peak) / heat).to(tl.float64)
        here = (top // WIDTH)[None, :] == at[:, None]
        mass = tl.maximum(mass - tl.sum(tl.where(here, taken[None, :], 0.0), axis=1), 0.0)
        goal = tl.maximum(goal - tl.sum(taken, axis=0), 0.0)
    edges = tl.cumsum(mass, axis=0)
    reached = edges <= tl.minimum(goal, tl.sum(mass, axis=0) * (1 - 1e-12))
    chunk = tl.minimum(tl.sum((reached & (at < chunks)).to(tl.int32), axis=0), chunks - 1)
    goal -= tl.sum(tl.where(at < chunk, mass, 0.0), axis=0)
    spot = chunk * WIDTH + tl.arange(0, WIDTH)
    piece = tl.load(logits + row * size + spot, mask=spot < size, other=float("-inf")).to(tl.float32)
    weight = tl.exp((piece - peak) / heat).to(tl.float64)
    if TOP > 0:
        for index in range(most):
            weight = tl.where(spot == tl.load(ids + row * listed + index), 0.0, weight)
    share = tl.cumsum(weight, axis=0)
    whole = tl.sum(weight, axis=0)
    index = tl.sum((share <= tl.minimum(goal, whole * (1 - 1e-12))).to(tl.int32), axis=0)
    token = (chunk * WIDTH + tl.minimum(index, WIDTH - 1)).to(tl.int64)
    token = tl.where((given == 0.0) | (whole <= 0.0), tl.load(best + row), token)
    tl.store(drawn + row, token)
    tl.store(totals + row, total)


def draw_rows(
    logits: Tensor, peaks: Tensor, best: Tensor, top: tuple[Tensor, Tensor], asked: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``inference.sampling.draw_torch.draw_rows``."""
    rows, size = logits.shape
    chunks, listed = triton.cdiv(size, CHUNK), top[0].shape[1]
    sums = torch.empty((rows, chunks), device=logits.device, dtype=torch.float32)
    _weigh[(rows, chunks)](logits, peaks, asked, sums, size, chunks, COLD=COLDEST, WIDTH=CHUNK, num_warps=4)
    drawn, totals = torch.empty_like(best), torch.empty(rows, device=logits.device, dtype=torch.float64)
    ids, values = (part.contiguous() for part in top)
    _pick[(rows,)](
        logits, peaks, best, ids, values, asked, sums, drawn, totals, size, chunks, listed,
        COLD=COLDEST, WIDTH=CHUNK, CHUNKS=triton.next_power_of_2(chunks),
        TOP=triton.next_power_of_2(listed) if listed else 0, num_warps=4,
    )  # fmt: skip
    return drawn, totals
