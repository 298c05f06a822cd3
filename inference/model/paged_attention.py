"""The paged cache in torch, and attention of ragged rows over it.

Attention reads the cache in whole spans of ``SPAN`` positions, as many as a row's own position needs, so the shape of
a row's work depends on its own position only. Rows of one request within a span share one product; its number of
query rows is padded to one of a few counts at which this machine's kernels give the same bits (``steady_tiles``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference.ports import ERASE, Move, StepInput

SPAN = 64
MAX_TILE = 256
"""Query rows of one product, about; bounds the memory of its scores."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a cache: ``group`` query heads share a key head; ``value`` 0 says values are the keys' first part."""

    layers: int
    kv_heads: int
    group: int
    key: int
    value: int
    blocks: int
    block_size: int


class PagedCache:
    """Per layer ``[kv_heads, blocks + 2, block_size, key]`` keys, and values likewise unless they are in the keys.

    The last but one block stays zero: tables are filled up with it. The last is scratch: padding rows write there.
    Memory is reserved zeroed, hence committed by the system only as positions are written.
    """

    def __init__(self, geometry: Geometry, device: torch.device, dtype: torch.dtype) -> None:
        self.geometry = geometry
        self.blank, self.scratch = geometry.blocks, geometry.blocks + 1

        def zeros(width: int) -> Tensor:
            shape = (geometry.kv_heads, geometry.blocks + 2, geometry.block_size, width)
            return torch.zeros(shape, device=device, dtype=dtype)

        self.keys = [zeros(geometry.key) for _ in range(geometry.layers)]
        self.values = [zeros(geometry.value) for _ in range(geometry.layers)] if geometry.value else []

    def layer(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Keys and values of a layer."""
        return self.keys[index], self.values[index] if self.values else None

    def rearrange(self, moves: Sequence[Move]) -> None:
        """Copy and erase blocks in order; neighbouring erasures are done at once."""
        for copy, targets in _batched(moves):
            erased = torch.tensor(targets, device=self.keys[0].device)
            for tensor in (*self.keys, *self.values):
                if copy == ERASE:
                    tensor.index_fill_(1, erased, 0)
                else:
                    tensor[:, targets[0]] = tensor[:, copy]


def _batched(moves: Sequence[Move]) -> Iterator[tuple[int, list[int]]]:
    erased: list[int] = []
    for source, target in moves:
        if source == ERASE:
            erased.append(target)
            continue
        if erased:
            yield ERASE, erased
            erased = []
        yield source, [target]
    if erased:
        yield ERASE, erased


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that read equally many spans: ``count`` requests with ``each`` rows, computed as one product per head.

    ``rows``: int64 ``[count * each]`` indices; ``table``: int64, blocks of all heads as rows of the flattened cache;
    ``mask``: ``[count, each, 1, positions]``, -inf where a position is in a row's future; ``tile``: padded query rows.
    """

    rows: Tensor
    table: Tensor
    mask: Tensor
    count: int
    each: int
    tile: int


@dataclass(frozen=True, slots=True)
class Rows:
    """One ragged batch: ``tokens``, ``positions``, ``blocks``, ``offsets`` are int64 ``[rows]``.

    ``adapters`` lists ((tenant, name), bool ``[rows, 1]``) of those in use.
    """

    tokens: Tensor
    positions: Tensor
    blocks: Tensor
    offsets: Tensor
    groups: list[RowGroup]
    adapters: list[tuple[tuple[str, str], Tensor]]


def make_rows(feeds: Sequence[StepInput], pad: int, cache: PagedCache, tiles: Sequence[int]) -> Rows:
    """Lay out feeds, one row per token, and ``pad`` rows that touch nothing of theirs."""
    device, size = cache.keys[0].device, cache.geometry.block_size
    tokens = [token for item in feeds for token in item.tokens]
    spots = [(item, position) for item in feeds for position in _positions(item)]

    def tensor(values: list[int], filler: int) -> Tensor:
        return torch.tensor(values + [filler] * pad, device=device)

    names = [item.adapter for item, _ in spots] + [None] * pad
    return Rows(
        tokens=tensor(tokens, 0),
        positions=tensor([position for _, position in spots], 0),
        blocks=tensor([item.feed.blocks[position // size] for item, position in spots], cache.scratch),
        offsets=tensor([position % size for _, position in spots], 0),
        groups=[_group(*found, cache, tiles) for found in _pieces(feeds, cache.geometry.group)],
        adapters=[
            (name, torch.tensor([[name == other] for other in names], device=device))
            for name in sorted({name for name in names if name})
        ],
    )


def _positions(item: StepInput) -> range:
    return range(item.feed.start, item.feed.start + item.feed.count)


def _pieces(feeds: Sequence[StepInput], group: int) -> Iterator[tuple[list[int], list[StepInput], list[range], int]]:
    """(first rows, feeds, positions, spans) of each group: single rows together, longer runs by themselves."""
    single: dict[int, tuple[list[int], list[StepInput], list[range], int]] = {}
    row, most = 0, max(1, MAX_TILE // group)
    for item in feeds:
        positions = _positions(item)
        while positions:
            spans = positions[0] // SPAN + 1
            count = min(len(positions), spans * SPAN - positions[0], most)
            piece, positions = positions[:count], positions[count:]
            if count == 1:
                found = single.setdefault(spans, ([], [], [], spans))
                found[0].append(row)
                found[1].append(item)
                found[2].append(piece)
            else:
                yield [row], [item], [piece], spans
            row += count
    yield from single.values()


def _group(
    firsts: list[int], items: list[StepInput], runs: list[range], spans: int, cache: PagedCache, tiles: Sequence[int]
) -> RowGroup:
    device, geometry = cache.keys[0].device, cache.geometry
    each, length = len(runs[0]), spans * SPAN // geometry.block_size
    tables = [[*item.feed.blocks[:length], *[cache.blank] * (length - len(item.feed.blocks))] for item in items]
    heads = torch.arange(geometry.kv_heads, device=device)[:, None] * (geometry.blocks + 2)
    flat = heads + torch.tensor(tables, device=device).flatten()
    positions = torch.tensor([list(run) for run in runs], device=device)
    future = torch.arange(spans * SPAN, device=device) > positions[:, :, None]
    mask = torch.zeros(future.shape, device=device, dtype=cache.keys[0].dtype).masked_fill_(future, -torch.inf)
    rows = torch.tensor([first + index for first in firsts for index in range(each)], device=device)
    tile = next(tile for tile in tiles if tile >= each * geometry.group)
    return RowGroup(rows, flat.flatten(), mask[:, :, None], len(runs), each, tile)


def attend(query: Tensor, keys: Tensor, values: Tensor | None, rows: Rows, width: int) -> Tensor:
    """Mix values for scaled queries ``[rows, kv_heads, group, key]``: ``[rows, kv_heads, group, width]``.

    Padding rows get zeros. Without ``values`` a key's first ``width`` dimensions are its value.
    """
    count, heads, shared, size = query.shape
    mixed = query.new_zeros((count, heads, shared, width))
    for group in rows.groups:
        used = group.each * shared
        asked = query[group.rows].view(group.count, group.each, heads, shared, size).permute(2, 0, 1, 3, 4)
        tile = functional.pad(asked.reshape(heads * group.count, used, size), (0, 0, 0, group.tile - used))
        held = _read(keys, group)
        scores = tile @ held.transpose(1, 2)
        scores[:, :used].view(heads, group.count, group.each, shared, -1).add_(group.mask)
        found = scores.softmax(-1) @ (held[..., :width] if values is None else _read(values, group))
        found = found[:, :used].reshape(heads, group.count, group.each, shared, width).permute(1, 2, 0, 3, 4)
        mixed[group.rows] = found.reshape(-1, heads, shared, width)
    return mixed


def _read(tensor: Tensor, group: RowGroup) -> Tensor:
    """``[kv_heads * count, positions, width]`` gathered from a layer's blocks."""
    heads, blocks, size, width = tensor.shape
    gathered = tensor.view(heads * blocks, size * width).index_select(0, group.table)
    return gathered.view(heads * group.count, -1, width)


@torch.inference_mode()
def steady_tiles(geometry: Geometry, device: torch.device, dtype: torch.dtype, positions: int) -> tuple[int, ...]:
    """Numbers of query rows at which a row's attention equals that among the most rows, bit for bit.

    Shapes select kernels and the order of sums, values do not, so comparing on random values finds a count that
    differs; ``positions`` is the deepest tried. The largest is always among them.
    """
    draw = torch.Generator().manual_seed(1)
    largest = 1 << (max(MAX_TILE, geometry.group) - 1).bit_length()
    steady = {1 << bit for bit in range(largest.bit_length())}
    for length in {SPAN, 2 * SPAN, -(-positions // SPAN) * SPAN}:
        asked = torch.randn((1, largest, geometry.key), generator=draw).to(device, dtype)
        keys = torch.randn((1, length, geometry.key), generator=draw).to(device, dtype)
        values = torch.randn((1, length, geometry.value or geometry.key), generator=draw).to(device, dtype)
        whole = _mix(asked, keys, values)
        for tile in sorted(steady - {largest}):
            several = 3 * geometry.kv_heads
            order = torch.arange(largest - 1, largest - 1 - tile, -1, device=device)
            part = _mix(*(x.expand(several, -1, -1).contiguous() for x in (asked[:, order], keys, values)))
            if not all(torch.equal(one, whole[0, order]) for one in part):
                steady.discard(tile)
    return tuple(sorted(steady))


def _mix(asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (asked @ keys.transpose(1, 2)).softmax(-1) @ values
