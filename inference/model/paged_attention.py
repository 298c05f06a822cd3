"""The paged cache in torch (Kwon et al., SOSP 2023), and attention of ragged rows over it.

Attention reads the cache in whole spans of ``SPAN`` positions, as many as a row's own position needs, so the shape of
a row's work depends on its own position only. Rows of one request within a span share one product; its number of
query rows is padded to one of a few counts at which this machine's kernels give the same bits (``steady_tiles``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from inference.ports import ERASE, Move, StepInput

SPAN = 64
MAX_TILE = 256
"""Query rows of one product, about; bounds the memory of its scores."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a cache: ``group`` query heads share a key head; with ``value`` 0 values are the first part of keys."""

    layers: int
    kv_heads: int
    group: int
    key: int
    value: int
    blocks: int
    block_size: int


class PagedCache:
    """Keys ``[kv_heads, blocks + 2, block_size, key]`` of each layer, and values ``[..., value]`` if not in the keys.

    The last but one block stays zero: tables are filled up with it. The last is scratch: padding rows write there.
    Memory is reserved zeroed, hence committed by the system only as positions are written.
    """

    def __init__(self, geometry: Geometry, device: torch.device, dtype: torch.dtype) -> None:
        self.geometry = geometry
        self.blank = geometry.blocks
        self.scratch = geometry.blocks + 1

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
        for source, targets in _batched(moves):
            erased = torch.tensor(targets, device=self.keys[0].device)
            for tensor in (*self.keys, *self.values):
                if source == ERASE:
                    tensor.index_fill_(1, erased, 0)
                else:
                    tensor[:, targets[0]] = tensor[:, source]


def _batched(moves: Sequence[Move]) -> Iterator[tuple[int, list[int]]]:
    """Moves in order as (source, targets), erasures that follow each other as one."""
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


def make_rows(inputs: Sequence[StepInput], pad: int, cache: PagedCache, tiles: Sequence[int]) -> Rows:
    """Lay out inputs, one row for each token, and ``pad`` rows that touch nothing of theirs."""
    device, size = cache.keys[0].device, cache.geometry.block_size
    tokens = [token for item in inputs for token in item.tokens]
    places = [(item, position) for item in inputs for position in _positions(item)]
    blocks = [item.scheduled.blocks[position // size] for item, position in places]

    def padded(values: list[int], filler: int) -> Tensor:
        return torch.tensor(values + [filler] * pad, device=device)

    names = [item.adapter for item, _ in places] + [None] * pad
    return Rows(
        tokens=padded(tokens, 0),
        positions=padded([position for _, position in places], 0),
        blocks=padded(blocks, cache.scratch),
        offsets=padded([position % size for _, position in places], 0),
        groups=[_row_group(run, cache, tiles) for run in _equal_runs(inputs, cache.geometry.group)],
        adapters=[
            (name, torch.tensor([[name == other] for other in names], device=device))
            for name in sorted({name for name in names if name})
        ],
    )


def _positions(item: StepInput) -> range:
    return range(item.scheduled.start, item.scheduled.start + item.scheduled.count)


@dataclass(slots=True)
class _EqualRuns:
    """Runs of neighbouring rows, all of one length, that read ``spans`` spans; parallel lists, one entry a run."""

    spans: int
    first_rows: list[int] = field(default_factory=list)
    inputs: list[StepInput] = field(default_factory=list)
    positions: list[range] = field(default_factory=list)

    def add(self, first_row: int, item: StepInput, positions: range) -> None:
        self.first_rows.append(first_row)
        self.inputs.append(item)
        self.positions.append(positions)


def _equal_runs(inputs: Sequence[StepInput], group: int) -> Iterator[_EqualRuns]:
    """Cut inputs into the runs that are computed together: single rows together, longer runs by themselves."""
    single: dict[int, _EqualRuns] = {}
    row, most = 0, max(1, MAX_TILE // group)
    for item in inputs:
        positions = _positions(item)
        while positions:
            spans = positions[0] // SPAN + 1
            count = min(len(positions), spans * SPAN - positions[0], most)
            run, positions = positions[:count], positions[count:]
            if count == 1:
                single.setdefault(spans, _EqualRuns(spans)).add(row, item, run)
            else:
                yield _EqualRuns(spans, [row], [item], [run])
            row += count
    yield from single.values()


def _row_group(runs: _EqualRuns, cache: PagedCache, tiles: Sequence[int]) -> RowGroup:
    device, geometry = cache.keys[0].device, cache.geometry
    each, length = len(runs.positions[0]), runs.spans * SPAN
    positions = torch.tensor([list(run) for run in runs.positions], device=device)
    future = torch.arange(length, device=device) > positions[:, :, None]
    mask = torch.zeros(future.shape, device=device, dtype=cache.keys[0].dtype).masked_fill_(future, -torch.inf)
    rows = torch.tensor([first + index for first in runs.first_rows for index in range(each)], device=device)
    return RowGroup(
        rows=rows,
        table=_flat_table(runs.inputs, length // geometry.block_size, cache),
        mask=mask[:, :, None],
        count=len(runs.inputs),
        each=each,
        tile=next(tile for tile in tiles if tile >= each * geometry.group),
    )


def _flat_table(inputs: Sequence[StepInput], length: int, cache: PagedCache) -> Tensor:
    """``length`` blocks of each input for each head: int64 ``[kv_heads * inputs * length]`` of the flattened cache."""
    geometry, device = cache.geometry, cache.keys[0].device
    tables = []
    for item in inputs:
        blocks = item.scheduled.blocks
        tables.append([*blocks[:length], *[cache.blank] * (length - len(blocks))])
    first_of_head = torch.arange(geometry.kv_heads, device=device)[:, None] * (geometry.blocks + 2)
    return (first_of_head + torch.tensor(tables, device=device).flatten()).flatten()


def attend(query: Tensor, keys: Tensor, values: Tensor | None, rows: Rows, width: int) -> Tensor:
    """Mix values for scaled queries ``[rows, kv_heads, group, key]``: ``[rows, kv_heads, group, width]``.

    ``keys``: ``[kv_heads, blocks + 2, block_size, key]``, ``values`` the same with ``width`` for ``key``. Without
    values a key's first ``width`` dimensions are its value. Padding rows get zeros.
    """
    count, heads, shared, size = query.shape
    mixed = query.new_zeros((count, heads, shared, width))
    for group in rows.groups:
        used = group.each * shared
        # Q of [rows, kv_heads, shared, size] as [kv_heads * count, each * shared, size], padded to the tile
        split = query[group.rows].view(group.count, group.each, heads, shared, size).permute(2, 0, 1, 3, 4)
        tile = functional.pad(split.reshape(heads * group.count, used, size), (0, 0, 0, group.tile - used))
        # softmax(Q K^T + mask) V
        key = _read(keys, group)
        scores = tile @ key.transpose(1, 2)
        scores[:, :used].view(heads, group.count, group.each, shared, -1).add_(group.mask)
        weights = scores.softmax(-1)
        value = key[..., :width] if values is None else _read(values, group)
        output = weights @ value
        output = output[:, :used].reshape(heads, group.count, group.each, shared, width).permute(1, 2, 0, 3, 4)
        mixed[group.rows] = output.reshape(-1, heads, shared, width)
    return mixed


def _read(tensor: Tensor, group: RowGroup) -> Tensor:
    """``[kv_heads * count, positions, width]`` out of a layer's ``[kv_heads, blocks + 2, block_size, width]``."""
    heads, blocks, size, width = tensor.shape
    gathered = tensor.view(heads * blocks, size * width).index_select(0, group.table)
    return gathered.view(heads * group.count, -1, width)


@torch.inference_mode()
def steady_tiles(geometry: Geometry, device: torch.device, dtype: torch.dtype, positions: int) -> tuple[int, ...]:
    """Numbers of query rows at which a row's attention equals that among the most rows, bit for bit.

    Shapes select kernels and the order of sums, values do not, so comparing on random values finds a count that
    differs; ``positions`` is the deepest tried. The largest is always among them.
    """
    generator = torch.Generator().manual_seed(1)
    largest = 1 << (max(MAX_TILE, geometry.group) - 1).bit_length()
    steady = {1 << bit for bit in range(largest.bit_length())}
    several = 3 * geometry.kv_heads
    for length in {SPAN, 2 * SPAN, -(-positions // SPAN) * SPAN}:
        query = torch.randn((1, largest, geometry.key), generator=generator).to(device, dtype)
        key = torch.randn((1, length, geometry.key), generator=generator).to(device, dtype)
        value = torch.randn((1, length, geometry.value or geometry.key), generator=generator).to(device, dtype)
        whole = _attention(query, key, value)
        for tile in sorted(steady - {largest}):
            # the last rows in reverse order, several times
            order = torch.arange(largest - 1, largest - 1 - tile, -1, device=device)
            part = _attention(*(x.expand(several, -1, -1).contiguous() for x in (query[:, order], key, value)))
            if not all(torch.equal(one, whole[0, order]) for one in part):
                steady.discard(tile)
    return tuple(sorted(steady))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """``softmax(Q K^T) V`` of ``[batch, rows, key]``, ``[batch, positions, key]``, ``[batch, positions, value]``."""
    return (query @ key.transpose(1, 2)).softmax(-1) @ value
