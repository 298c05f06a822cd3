# mypy: ignore-errors
"""Triton kernels that draw tokens from rows of logits: ``inference.sampling.draw_torch.draw_rows`` in two launches.

Like ``inference.model.triton_kernels``: imported only where there is a CUDA device, and not Python to a type checker.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from inference.sampling.draw_torch import CHUNK, MIN_TEMPERATURE

SETTINGS = tl.constexpr(3)
"""Columns of ``settings``: temperature, uniform number, whether the top tokens are left out."""
_BELOW_ONE = tl.constexpr(1 - 1e-12)


@triton.jit
def _sum_chunks(logits, max_logits, settings, chunk_sums, vocab, chunks, COLDEST: tl.constexpr, WIDTH: tl.constexpr):
    """Sum the weights ``exp((logit - max) / T)`` of one chunk of one row; programs ``(rows, chunks)``."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    token = chunk * WIDTH + tl.arange(0, WIDTH)
    value = tl.load(logits + row * vocab + token, mask=token < vocab, other=float("-inf")).to(tl.float32)
    given = tl.load(settings + row * SETTINGS)
    temperature = tl.maximum(tl.where(given == 0.0, 1.0, given), COLDEST).to(tl.float32)
    weight = tl.exp((value - tl.load(max_logits + row)) / temperature)
    tl.store(chunk_sums + row * chunks + chunk, tl.sum(weight, axis=0))


@triton.jit(do_not_specialize=["k"])
def _draw(
    logits, max_logits, argmax, top_ids, top_logits, settings, chunk_sums, drawn, exp_sums, vocab, chunks, k,
    COLDEST: tl.constexpr, WIDTH: tl.constexpr, CHUNKS: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """Draw the token of one row from its chunks' sums ``[rows, chunks]``; programs ``(rows,)``.

    ``CHUNKS`` and ``TOP`` are ``chunks`` and ``k`` rounded up to powers of two.
    """
    row = tl.program_id(0).to(tl.int64)
    given = tl.load(settings + row * SETTINGS)
    uniform = tl.load(settings + row * SETTINGS + 1)
    temperature = tl.maximum(tl.where(given == 0.0, 1.0, given), COLDEST).to(tl.float32)
    left_out = tl.where(tl.load(settings + row * SETTINGS + 2) > 0.0, k, 0)
    max_logit = tl.load(max_logits + row)
    index = tl.arange(0, CHUNKS)
    sums = tl.load(chunk_sums + row * chunks + index, mask=index < chunks, other=0.0).to(tl.float64)
    exp_sum = tl.sum(sums, axis=0)
    target = uniform * exp_sum
    if TOP > 0:
        place = tl.arange(0, TOP)
        top_id = tl.load(top_ids + row * k + place, mask=place < left_out, other=-1)
        top_logit = tl.load(top_logits + row * k + place, mask=place < left_out, other=float("-inf"))
        top_weight = tl.exp((top_logit - max_logit) / temperature).to(tl.float64)
        in_chunk = (top_id // WIDTH)[None, :] == index[:, None]
        sums = tl.maximum(sums - tl.sum(tl.where(in_chunk, top_weight[None, :], 0.0), axis=1), 0.0)
        target = tl.maximum(target - tl.sum(top_weight, axis=0), 0.0)
    # the chunk: the first whose end is beyond the target
    ends = tl.cumsum(sums, axis=0)
    passed = (ends <= tl.minimum(target, tl.sum(sums, axis=0) * _BELOW_ONE)) & (index < chunks)
    chunk = tl.minimum(tl.sum(passed.to(tl.int32), axis=0), chunks - 1)
    target -= tl.sum(tl.where(index < chunk, sums, 0.0), axis=0)
    # the token within it
    token = chunk * WIDTH + tl.arange(0, WIDTH)
    value = tl.load(logits + row * vocab + token, mask=token < vocab, other=float("-inf")).to(tl.float32)
    weight = tl.exp((value - max_logit) / temperature).to(tl.float64)
    if TOP > 0:
        for skipped in range(left_out):
            weight = tl.where(token == tl.load(top_ids + row * k + skipped), 0.0, weight)
    ends = tl.cumsum(weight, axis=0)
    total = tl.sum(weight, axis=0)
    offset = tl.sum((ends <= tl.minimum(target, total * _BELOW_ONE)).to(tl.int32), axis=0)
    picked = (chunk * WIDTH + tl.minimum(offset, WIDTH - 1)).to(tl.int64)
    picked = tl.where((given == 0.0) | (total <= 0.0), tl.load(argmax + row), picked)
    tl.store(drawn + row, picked)
    tl.store(exp_sums + row, exp_sum)


def draw_rows(
    logits: Tensor, max_logits: Tensor, argmax: Tensor, top: tuple[Tensor, Tensor], settings: Tensor
) -> tuple[Tensor, Tensor]:
    """See ``inference.sampling.draw_torch.draw_rows``; the same shapes."""
    rows, vocab = logits.shape
    top_ids, top_logits = (part.contiguous() for part in top)
    chunks = triton.cdiv(vocab, CHUNK)
    k = top_ids.shape[1]
    chunk_sums = torch.empty((rows, chunks), device=logits.device, dtype=torch.float32)
    _sum_chunks[(rows, chunks)](
        logits, max_logits, settings, chunk_sums, vocab, chunks,
        COLDEST=MIN_TEMPERATURE, WIDTH=CHUNK, num_warps=4,
    )  # fmt: skip
    drawn = torch.empty_like(argmax)
    exp_sums = torch.empty(rows, device=logits.device, dtype=torch.float64)
    _draw[(rows,)](
        logits, max_logits, argmax, top_ids, top_logits, settings, chunk_sums, drawn, exp_sums, vocab, chunks, k,
        COLDEST=MIN_TEMPERATURE, WIDTH=CHUNK, CHUNKS=triton.next_power_of_2(chunks),
        TOP=triton.next_power_of_2(k) if k else 0, num_warps=4,
    )  # fmt: skip
    return drawn, exp_sums
