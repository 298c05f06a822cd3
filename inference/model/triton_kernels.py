# mypy: ignore-errors
"""Triton kernels of the CUDA path. Imported only where there is a CUDA device (or Triton's interpreter, for tests).

The body of a ``@triton.jit`` function is Triton's language, not Python: the type checker cannot read it.

Rows are tokens. A row's request is ``owners[row]``, a column of ``tables``: ``tables[position // BLOCK, column]`` is
the cache block that holds a position. All numbers of a pass live on the device, so a captured graph can be replayed on
others; those that a launch must be told are not specialised, or each would be compiled for anew. Sums are kept in
float32 for any dtype of weights and cache.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import triton
import triton.language as tl
from torch import Tensor

NARROW, WIDE = 16, 64
"""Query rows of one program: for single tokens (the least a matrix product takes), and for chunks of prompts."""
SPAN = 64
"""Positions that one iteration of an attention program reads."""
STAGES, WARPS = 3, 4
"""Depth of prefetching and warps of the attention's programs."""
_HEADS_EACH = 8
"""Heads that one program of ``_rope_and_write`` computes."""
_WIDTH = 1024
_LOG2_E = 1.4426950408889634
RowPlaces: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""``tables`` int32 ``[blocks, requests]``, ``positions`` int32 ``[rows]``, ``owners`` int32 ``[rows]``."""


@triton.jit
def _add_norm(x, delta, weight, out, size, epsilon, ADD: tl.constexpr, WIDTH: tl.constexpr):
    """One row of ``[rows, size]``; programs ``(rows,)``. WIDTH is ``size`` rounded up to a power of two."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    inside = column < size
    value = tl.load(x + row * size + column, mask=inside, other=0.0)
    if ADD:
        change = tl.load(delta + row * size + column, mask=inside, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + change).to(value.dtype)
        tl.store(x + row * size + column, value, mask=inside)
    wide = value.to(tl.float32)
    # RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + epsilon) * gain
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / size + epsilon)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + column, (wide * scale * gain).to(value.dtype), mask=inside)


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """Add ``delta`` to ``x`` in place, where there is one; the root-mean-square norm of the sum.

    ``x``, ``delta`` and the result: ``[rows, size]``; ``weight``: ``[size]``.
    """
    out = torch.empty_like(x)
    rows, size = x.shape
    width = triton.next_power_of_2(size)
    warps = 4 if width <= 2048 else 8
    _add_norm[(rows,)](
        x, x if delta is None else delta, weight, out, size, epsilon,
        ADD=delta is not None, WIDTH=width, num_warps=warps,
    )  # fmt: skip
    return out


@triton.jit
def _gate(both, out, inner, WIDTH: tl.constexpr):
    """WIDTH columns of one row of ``[rows, inner]``; programs ``(rows, inner / WIDTH)``."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < inner
    gate = tl.load(both + row * 2 * inner + column, mask=inside, other=0.0)
    up = tl.load(both + row * 2 * inner + inner + column, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide * tl.sigmoid(wide)).to(gate.dtype)
    tl.store(out + row * inner + column, (silu.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=inside)


def gated(both: Tensor) -> Tensor:
    """SwiGLU's ``silu(gate) * up`` (Shazeer 2020): ``[rows, inner]`` of ``[rows, 2 * inner]``, gates first."""
    rows, inner = both.shape[0], both.shape[1] // 2
    out = both.new_empty((rows, inner))
    _gate[(rows, triton.cdiv(inner, _WIDTH))](both, out, inner, WIDTH=_WIDTH, num_warps=4)
    return out


@triton.jit(do_not_specialize=["columns"])
def _rope_and_write(
    joined, query, keys, values, tables, positions, owners, cosine, sine, query_gain, key_gain,
    columns, head_stride, epsilon, heads, kv_heads,
    NORMED: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, HEADS_EACH: tl.constexpr,
):  # fmt: skip
    """HEADS_EACH heads of one row; programs ``(rows, (heads + 2 * kv_heads) / HEADS_EACH)``.

    Tensors within are ``[HEADS_EACH, HALF]``; HALF is ``SIZE / 2`` rounded up to a power of two. Dimension i and
    i + SIZE / 2 of a head are a pair (low, high), of which each rotary position makes
    (low cos - high sin, high cos + low sin).
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS_EACH + tl.arange(0, HEADS_EACH)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    inside = pair < SIZE // 2
    every = heads + 2 * kv_heads
    # query heads come first, then key heads, then value heads
    is_query = inside & (head < heads)
    is_key = inside & (head >= heads) & (head < heads + kv_heads)
    is_value = inside & (head < every) & (head >= heads + kv_heads)
    rotary = head < heads + kv_heads
    source = joined + (row * every + head) * SIZE + pair
    low = tl.load(source, mask=inside & (head < every), other=0.0).to(tl.float32)
    high = tl.load(source + SIZE // 2, mask=inside & (head < every), other=0.0).to(tl.float32)
    if NORMED:
        scale = tl.rsqrt((tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)) / SIZE + epsilon)[:, None]
        not_query = inside & (head >= heads)
        # one of the two loads is zero
        low_gain = tl.load(query_gain + pair + head * 0, mask=is_query, other=0.0) + tl.load(
            key_gain + pair + head * 0, mask=not_query, other=0.0
        )
        high_gain = tl.load(query_gain + SIZE // 2 + pair + head * 0, mask=is_query, other=0.0) + tl.load(
            key_gain + SIZE // 2 + pair + head * 0, mask=not_query, other=0.0
        )
        low = tl.where(rotary, low * scale * low_gain.to(tl.float32), low)
        high = tl.where(rotary, high * scale * high_gain.to(tl.float32), high)
    position = tl.load(positions + row)
    angle = position.to(tl.int64) * (SIZE // 2) + pair
    cos = tl.load(cosine + angle, mask=inside, other=0.0)
    sin = tl.load(sine + angle, mask=inside, other=0.0)
    dtype = query.dtype.element_ty
    low_out = tl.where(rotary, low * cos - high * sin, low).to(dtype)
    high_out = tl.where(rotary, high * cos + low * sin, high).to(dtype)
    target = query + (row * heads + head) * SIZE + pair
    tl.store(target, low_out, mask=is_query)
    tl.store(target + SIZE // 2, high_out, mask=is_query)
    block = tl.load(tables + (position // BLOCK) * columns + tl.load(owners + row)).to(tl.int64)
    place = (block * BLOCK + position % BLOCK) * SIZE + pair
    target = keys + (head - heads).to(tl.int64) * head_stride + place
    tl.store(target, low_out, mask=is_key)
    tl.store(target + SIZE // 2, high_out, mask=is_key)
    target = values + (head - heads - kv_heads).to(tl.int64) * head_stride + place
    tl.store(target, low_out, mask=is_value)
    tl.store(target + SIZE // 2, high_out, mask=is_value)


def rope_and_write(
    joined: Tensor,
    keys: Tensor,
    values: Tensor,
    places: RowPlaces,
    rope: tuple[Tensor, Tensor],
    gains: tuple[Tensor, Tensor] | None,
    epsilon: float,
) -> Tensor:
    """Apply rotary positions to queries and keys, and write keys and values into the cache; gives the queries.

    ``joined``: ``[rows, heads + 2 * kv_heads, size]``. ``keys``, ``values``: ``[kv_heads, blocks, block_size, size]``.
    ``rope``: float32 cosines and sines ``[context, size / 2]``. ``gains``: weights ``[size]`` of the norms of query and
    key heads, or None. The queries are ``[rows, heads, size]``.
    """
    rows, every, size = joined.shape
    kv_heads, _, block, _ = keys.shape
    heads = every - 2 * kv_heads
    query = joined.new_empty((rows, heads, size))
    tables, positions, owners = places
    normed = gains is not None
    query_gain, key_gain = gains if normed else (query, query)
    _rope_and_write[(rows, triton.cdiv(every, _HEADS_EACH))](
        joined, query, keys, values, tables, positions, owners, *rope, query_gain, key_gain,
        tables.shape[1], keys.stride(0), epsilon, heads, kv_heads,
        NORMED=normed, BLOCK=block, SIZE=size, HALF=triton.next_power_of_2(size // 2), HEADS_EACH=_HEADS_EACH,
        num_warps=2,
    )  # fmt: skip
    return query


@triton.jit(do_not_specialize=["columns", "rows"])
def _attend(
    query, keys, values, tables, positions, owners, firsts, counts, out, part, max_scores, exp_sums,
    scale, columns, head_stride, rows, kv_heads,
    GROUP: tl.constexpr, LINES: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    SPAN: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """One tile, one key head, one split of the positions; programs ``(tiles, kv_heads, SPLITS)``.

    Online softmax (Milakov & Gimelshein 2018, as in FlashAttention, Dao et al. 2022) over spans of keys: ``max_score``
    (m in the paper) is the running maximum of a line's scores, ``exp_sum`` (l) the running sum of ``exp(score - m)``,
    and ``mixed`` (O) is rescaled whenever m rises. A line is one query head of one row: LINES of them, WIDTH wide.
    """
    tile, head = tl.program_id(0), tl.program_id(1)
    split = tl.program_id(2)
    first = tl.load(firsts + tile)
    count = tl.load(counts + tile)
    column = tl.load(owners + first)
    line, d = tl.arange(0, LINES), tl.arange(0, WIDTH)
    token, member = line // GROUP, line % GROUP
    real = token < count
    row = (first + token).to(tl.int64)
    own = tl.load(positions + row, mask=real, other=-1)
    place = (row * kv_heads * GROUP + head * GROUP + member) * SIZE
    used = real[:, None] & (d < SIZE)[None, :]
    # Q [LINES, WIDTH]
    q = tl.load(query + place[:, None] + d[None, :], mask=used, other=0.0)
    limit = tl.load(positions + first + count - 1) + 1
    share = tl.cdiv(tl.cdiv(limit, SPAN), SPLITS) * SPAN
    begin = split * share
    end = tl.minimum(begin + share, limit)
    # finite, so that a line that sees nothing does not become inf - inf
    max_score = tl.full((LINES,), -1e30, dtype=tl.float32)
    exp_sum = tl.zeros((LINES,), dtype=tl.float32)
    mixed = tl.zeros((LINES, WIDTH), dtype=tl.float32)
    for start in range(begin, end, SPAN):
        n = start + tl.arange(0, SPAN)
        known = n < end
        block = tl.load(tables + (n // BLOCK) * columns + column, mask=known, other=0).to(tl.int64)
        offset = head * head_stride + (block * BLOCK + n % BLOCK) * SIZE
        seen = known[:, None] & (d < SIZE)[None, :]
        # K [SPAN, WIDTH] and the scores S = Q K^T [LINES, SPAN], in units of log2 e
        k = tl.load(keys + offset[:, None] + d[None, :], mask=seen, other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s = tl.where(known[None, :] & (n[None, :] <= own[:, None]), s, float("-inf"))
        higher = tl.maximum(max_score, tl.max(s, axis=1))
        rescale = tl.exp2(max_score - higher)
        p = tl.exp2(s - higher[:, None])
        exp_sum = exp_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(values + offset[:, None] + d[None, :], mask=seen, other=0.0)
        mixed = mixed * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        max_score = higher
    if SPLITS == 1:
        mixed = mixed / tl.where(exp_sum == 0.0, 1.0, exp_sum)[:, None]
        tl.store(out + place[:, None] + d[None, :], mixed.to(out.dtype.element_ty), mask=used)
    else:
        each = rows * kv_heads * GROUP
        piece = split * each + row * kv_heads * GROUP + head * GROUP + member
        tl.store(part + piece[:, None] * SIZE + d[None, :], mixed, mask=used)
        tl.store(max_scores + piece, max_score, mask=real)
        tl.store(exp_sums + piece, exp_sum, mask=real)


@triton.jit(do_not_specialize=["each"])
def _combine(part, max_scores, exp_sums, out, each, SIZE: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    """Join the splits of one line, weighted by ``exp(max_score - largest max_score)``; programs ``(rows * heads,)``."""
    line = tl.program_id(0).to(tl.int64)
    split, d = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    max_score = tl.load(max_scores + split * each + line)
    exp_sum = tl.load(exp_sums + split * each + line)
    weight = tl.exp2(max_score - tl.max(max_score, axis=0))
    place = (split * each + line)[:, None] * SIZE + d[None, :]
    pieces = tl.load(part + place, mask=(d < SIZE)[None, :], other=0.0)
    mixed = tl.sum(pieces * weight[:, None], axis=0) / tl.sum(exp_sum * weight, axis=0)
    tl.store(out + line * SIZE + d, mixed.to(out.dtype.element_ty), mask=d < SIZE)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    places: RowPlaces,
    tiles: tuple[Tensor, Tensor],
    lines: int,
    splits: int,
) -> None:
    """Attention of ``[rows, heads, size]`` queries, each up to its own position, into the same rows of ``out``.

    ``keys``, ``values``: ``[kv_heads, blocks, block_size, size]``. ``tiles``: first rows and numbers of rows, each
    ``[tiles]``; the rows of one are neighbours in one request, and those of all its heads that share a key head are
    ``lines`` at most. ``splits`` programs share the positions of a tile; more than one only where tile ``i`` is row
    ``i`` alone.
    """
    rows, (heads, size) = len(tiles[0]), query.shape[1:]
    kv_heads, _, block, _ = keys.shape
    tables, positions, owners = places
    shape = (splits, rows, heads) if splits > 1 else (1,)
    part = query.new_empty((*shape, size), dtype=torch.float32)
    max_scores, exp_sums = (query.new_empty(shape, dtype=torch.float32) for _ in range(2))
    width = max(16, triton.next_power_of_2(size))
    _attend[(len(tiles[0]), kv_heads, splits)](
        query, keys, values, tables, positions, owners, *tiles, out, part, max_scores, exp_sums,
        size**-0.5 * _LOG2_E, tables.shape[1], keys.stride(0), rows, kv_heads,
        GROUP=heads // kv_heads, LINES=lines, SIZE=size, WIDTH=width, BLOCK=block, SPAN=SPAN, SPLITS=splits,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    if splits > 1:
        _combine[(rows * heads,)](
            part, max_scores, exp_sums, out, rows * heads, SIZE=size, WIDTH=width, SPLITS=splits, num_warps=1
        )
