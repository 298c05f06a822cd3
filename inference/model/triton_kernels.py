# mypy: ignore-errors
"""Triton kernels of the CUDA path. Imported only where there is a CUDA device (or Triton's interpreter, for tests).

What follows a ``@triton.jit`` is Triton's language, not Python: the type checker cannot read it.

Rows are tokens. A row's request is ``owners[row]``, a column of ``tables``: ``tables[position // BLOCK, column]`` is
the cache block that holds a position. All numbers of a pass live on the device, so a captured graph can be replayed on
others; those that a launch must be told are not specialised, or each would be compiled for anew. Sums are kept in
float32 whatever the dtype of weights and cache.
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
STAGES, WARPS = 3, 4
"""Depth of prefetching and warps of the attention's programs."""
_SEVERAL = 8
"""Heads that one program turns."""
_WIDTH = 1024
_LOG2_E = 1.4426950408889634
Spots: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Tables, positions, owners."""


@triton.jit
def _add_norm(x, delta, weight, out, size, epsilon, ADD: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    inside = at < size
    held = tl.load(x + row * size + at, mask=inside, other=0.0)
    if ADD:
        held = (held.to(tl.float32) + tl.load(delta + row * size + at, mask=inside, other=0.0).to(tl.float32)).to(
            held.dtype
        )
        tl.store(x + row * size + at, held, mask=inside)
    wide = held.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / size + epsilon)
    gain = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, (wide * scale * gain).to(held.dtype), mask=inside)


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
    """Adds ``delta`` to ``x`` in place, where there is one; the root-mean-square norm of the sum."""
    out = torch.empty_like(x)
    rows, size = x.shape
    width = triton.next_power_of_2(size)
    warps = 4 if width <= 2048 else 8
    _add_norm[(rows,)](
        x,
        x if delta is None else delta,
        weight,
        out,
        size,
        epsilon,
        ADD=delta is not None,
        WIDTH=width,
        num_warps=warps,
    )
    return out


@triton.jit
def _gate(both, out, inner, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = at < inner
    gate = tl.load(both + row * 2 * inner + at, mask=inside, other=0.0)
    up = tl.load(both + row * 2 * inner + inner + at, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide * tl.sigmoid(wide)).to(gate.dtype)
    tl.store(out + row * inner + at, (silu.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=inside)


def gated(both: Tensor) -> Tensor:
    """SwiGLU's ``silu(gate) * up`` of ``[rows, 2 * inner]``, gates first."""
    rows, inner = both.shape[0], both.shape[1] // 2
    out = both.new_empty((rows, inner))
    _gate[(rows, triton.cdiv(inner, _WIDTH))](both, out, inner, WIDTH=_WIDTH, num_warps=4)
    return out


@triton.jit(do_not_specialize=["columns"])
def _turn(
    joined, query, keys, values, tables, positions, owners, cosine, sine, query_gain, key_gain,
    columns, head_stride, epsilon, heads, kv_heads,
    NORMED: tl.constexpr, BLOCK: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, SEVERAL: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1) * SEVERAL + tl.arange(0, SEVERAL)[:, None]
    at = tl.arange(0, HALF)[None, :]
    wide = at < SIZE // 2
    every = heads + 2 * kv_heads
    turned = head < heads + kv_heads
    source = joined + (row * every + head) * SIZE + at
    low = tl.load(source, mask=wide & (head < every), other=0.0).to(tl.float32)
    high = tl.load(source + SIZE // 2, mask=wide & (head < every), other=0.0).to(tl.float32)
    if NORMED:
        scale = tl.rsqrt((tl.sum(low * low, axis=1) + tl.sum(high * high, axis=1)) / SIZE + epsilon)[:, None]
        asked = wide & (head < heads)
        held = wide & (head >= heads)
        first = tl.load(query_gain + at + head * 0, mask=asked, other=0.0) + tl.load(
            key_gain + at + head * 0, mask=held, other=0.0
        )
        second = tl.load(query_gain + SIZE // 2 + at + head * 0, mask=asked, other=0.0) + tl.load(
            key_gain + SIZE // 2 + at + head * 0, mask=held, other=0.0
        )
        low = tl.where(turned, low * scale * first.to(tl.float32), low)
        high = tl.where(turned, high * scale * second.to(tl.float32), high)
    position = tl.load(positions + row)
    turn = position.to(tl.int64) * (SIZE // 2) + at
    c = tl.load(cosine + turn, mask=wide, other=0.0)
    s = tl.load(sine + turn, mask=wide, other=0.0)
    kind = query.dtype.element_ty
    one = tl.where(turned, low * c - high * s, low).to(kind)
    other = tl.where(turned, high * c + low * s, high).to(kind)
    target = query + (row * heads + head) * SIZE + at
    tl.store(target, one, mask=wide & (head < heads))
    tl.store(target + SIZE // 2, other, mask=wide & (head < heads))
    block = tl.load(tables + (position // BLOCK) * columns + tl.load(owners + row)).to(tl.int64)
    spot = (block * BLOCK + position % BLOCK) * SIZE + at
    target = keys + (head - heads).to(tl.int64) * head_stride + spot
    tl.store(target, one, mask=wide & (head >= heads) & turned)
    tl.store(target + SIZE // 2, other, mask=wide & (head >= heads) & turned)
    target = values + (head - heads - kv_heads).to(tl.int64) * head_stride + spot
    tl.store(target, one, mask=wide & (head < every) & (head >= heads + kv_heads))
    tl.store(target + SIZE // 2, other, mask=wide & (head < every) & (head >= heads + kv_heads))


def turn_and_write(
    joined: Tensor,
    keys: Tensor,
    values: Tensor,
    where: Spots,
    turns: tuple[Tensor, Tensor],
    gains: tuple[Tensor, Tensor] | None,
    epsilon: float,
) -> Tensor:
    """Turns the queries and keys of ``[rows, heads + 2 * kv_heads, size]`` and writes keys and values into the cache.

    ``turns``: float32 cosines and sines ``[context, size / 2]``; ``gains``:
    weights of the norms of query and key heads, or None. The queries, ``[rows, heads, size]``.
    """
    rows, every, size = joined.shape
    kv_heads, _, block, _ = keys.shape
    heads = every - 2 * kv_heads
    query = joined.new_empty((rows, heads, size))
    tables, positions, owners = where
    normed = gains is not None
    first, second = gains if normed else (query, query)
    _turn[(rows, triton.cdiv(every, _SEVERAL))](
        joined, query, keys, values, tables, positions, owners, *turns, first, second,
        tables.shape[1], keys.stride(0), epsilon, heads, kv_heads,
        NORMED=normed, BLOCK=block, SIZE=size, HALF=triton.next_power_of_2(size // 2), SEVERAL=_SEVERAL,
        num_warps=2,
    )  # fmt: skip
    return query


@triton.jit(do_not_specialize=["columns", "rows"])
def _attend(
    query, keys, values, tables, positions, owners, firsts, counts, out, part, peaks, sums,
    scale, columns, head_stride, rows, kv_heads,
    GROUP: tl.constexpr, ROWS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    SPAN: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = tl.load(firsts + tile)
    count = tl.load(counts + tile)
    column = tl.load(owners + first)
    line, d = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    token, member = line // GROUP, line % GROUP
    real = token < count
    row = (first + token).to(tl.int64)
    own = tl.load(positions + row, mask=real, other=-1)
    spot = (row * kv_heads * GROUP + head * GROUP + member) * SIZE
    used = real[:, None] & (d < SIZE)[None, :]
    asked = tl.load(query + spot[:, None] + d[None, :], mask=used, other=0.0)
    limit = tl.load(positions + first + count - 1) + 1
    share = tl.cdiv(tl.cdiv(limit, SPAN), SPLITS) * SPAN
    begin = split * share
    end = tl.minimum(begin + share, limit)
    # finite, so that a line that sees nothing does not become inf - inf
    peak = tl.full((ROWS,), -1e30, dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    for start in range(begin, end, SPAN):
        n = start + tl.arange(0, SPAN)
        known = n < end
        block = tl.load(tables + (n // BLOCK) * columns + column, mask=known, other=0).to(tl.int64)
        held = head * head_stride + (block * BLOCK + n % BLOCK) * SIZE
        seen = known[:, None] & (d < SIZE)[None, :]
        key = tl.load(keys + held[:, None] + d[None, :], mask=seen, other=0.0)
        scores = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
        scores = tl.where(known[None, :] & (n[None, :] <= own[:, None]), scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=1))
        fade = tl.exp2(peak - higher)
        weight = tl.exp2(scores - higher[:, None])
        total = total * fade + tl.sum(weight, axis=1)
        value = tl.load(values + held[:, None] + d[None, :], mask=seen, other=0.0)
        mixed = mixed * fade[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        peak = higher
    if SPLITS == 1:
        mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(out + spot[:, None] + d[None, :], mixed.to(out.dtype.element_ty), mask=used)
    else:
        each = rows * kv_heads * GROUP
        place = split * each + row * kv_heads * GROUP + head * GROUP + member
        tl.store(part + place[:, None] * SIZE + d[None, :], mixed, mask=used)
        tl.store(peaks + place, peak, mask=real)
        tl.store(sums + place, total, mask=real)


@triton.jit(do_not_specialize=["each"])
def _combine(part, peaks, sums, out, each, SIZE: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    split, d = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    peak = tl.load(peaks + split * each + line)
    total = tl.load(sums + split * each + line)
    weight = tl.exp2(peak - tl.max(peak, axis=0))
    place = (split * each + line)[:, None] * SIZE + d[None, :]
    pieces = tl.load(part + place, mask=(d < SIZE)[None, :], other=0.0)
    mixed = tl.sum(pieces * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    tl.store(out + line * SIZE + d, mixed.to(out.dtype.element_ty), mask=d < SIZE)


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    where: Spots,
    tiles: tuple[Tensor, Tensor],
    lines: int,
    splits: int,
) -> None:
    """Attention of ``[rows, heads, size]`` queries, each up to its own position, into the same rows of ``out``.

    ``tiles``: (first rows, numbers of rows); the rows of one are neighbours in one request, and those of all its heads
    that share a key head are ``lines`` at most. ``splits`` programs share the positions of a tile; more than one only
    where tile ``i`` is row ``i`` alone.
    """
    rows, (heads, size) = len(tiles[0]), query.shape[1:]
    kv_heads, _, block, _ = keys.shape
    tables, positions, owners = where
    shape = (splits, rows, heads) if splits > 1 else (1,)
    part = query.new_empty((*shape, size), dtype=torch.float32)
    peaks, sums = (query.new_empty(shape, dtype=torch.float32) for _ in range(2))
    width = max(16, triton.next_power_of_2(size))
    _attend[(len(tiles[0]), kv_heads, splits)](
        query, keys, values, tables, positions, owners, *tiles, out, part, peaks, sums,
        size**-0.5 * _LOG2_E, tables.shape[1], keys.stride(0), rows, kv_heads,
        GROUP=heads // kv_heads, ROWS=lines, SIZE=size, WIDTH=width, BLOCK=block, SPAN=SPAN, SPLITS=splits,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    if splits > 1:
        _combine[(rows * heads,)](
            part, peaks, sums, out, rows * heads, SIZE=size, WIDTH=width, SPLITS=splits, num_warps=1
        )
