"""The rows of a fused pass, laid out on the host and sent to the device in one transfer."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.model.fused import PassInputs
from inference.ports import StepInput

Ints = NDArray[np.int32]
_ALIGNED = 16


class Upload:
    """Sends int32 numbers to the device, through pinned memory where that is CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, values: Ints, target: Tensor | None = None) -> Tensor:
        """``[n]`` on the device: new, or the first part of ``target``."""
        host = torch.from_numpy(values)
        if self._device.type == "cuda":
            host = host.pin_memory()
        if target is None:
            return host.to(self._device, non_blocking=True)
        return target[: len(host)].copy_(host, non_blocking=True)


class PassLayout(NamedTuple):
    """The rows of a pass, and the index of the last row of each input."""

    inputs: PassInputs
    last_rows: list[int]


def lay_out(upload: Upload, inputs: list[StepInput], each: int, scratch: int) -> PassLayout:
    """Lay out inputs, single tokens first; longer ones are cut into tiles of at most ``each`` rows."""
    counts = np.array([item.scheduled.count for item in inputs])
    first_rows = np.concatenate(([0], counts.cumsum()[:-1]))
    table = block_table(inputs, len(inputs), scratch)
    singles = int((counts == 1).sum())
    tiles = [
        (first + step, min(each, count - step))
        for first, count in zip(first_rows[singles:].tolist(), counts[singles:].tolist(), strict=True)
        for step in range(0, count, each)
    ]
    sent = _send(
        upload,
        {
            "tokens": np.array([token for item in inputs for token in item.tokens]),
            "positions": np.concatenate([_positions(item) for item in inputs]),
            "owners": np.repeat(np.arange(len(inputs)), counts),
            "tables": table.ravel(),
            "single rows": np.arange(singles),
            "single counts": np.ones(singles),
            "tile rows": np.array([first for first, _ in tiles]),
            "tile counts": np.array([count for _, count in tiles]),
        },
    )
    rows = PassInputs(
        tokens=sent["tokens"],
        positions=sent["positions"],
        owners=sent["owners"],
        tables=sent["tables"].view(table.shape),
        singles=(sent["single rows"], sent["single counts"]) if singles else None,
        chunks=(sent["tile rows"], sent["tile counts"]) if tiles else None,
    )
    return PassLayout(rows, (first_rows + counts - 1).tolist())


def block_table(inputs: Items[StepInput], columns: int, scratch: int) -> Ints:
    """``[blocks, columns]``: the blocks of each input in a column, filled up with ``scratch``."""
    height = max(len(item.scheduled.blocks) for item in inputs)
    filler = (scratch,) * height
    blocks = (item.scheduled.blocks for item in inputs)
    numbers = chain.from_iterable(own + filler[len(own) :] for own in blocks)
    table = np.full((columns, height), scratch, dtype=np.int32)
    table[: len(inputs)] = np.fromiter(numbers, dtype=np.int32, count=height * len(inputs)).reshape(-1, height)
    return np.ascontiguousarray(table.T)


def _positions(item: StepInput) -> NDArray[np.int64]:
    return np.arange(item.scheduled.start, item.scheduled.start + item.scheduled.count)


def _send(upload: Upload, columns: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
    """The columns as int32 on the device, in one transfer.

    Each begins at a multiple of ``_ALIGNED`` bytes: Triton compiles a kernel anew for pointers that do not.
    """
    numbers = [column.astype(np.int32) for column in columns.values()]
    padded = [np.pad(column, (0, -len(column) % (_ALIGNED // column.itemsize))) for column in numbers]
    parts = torch.split(upload(np.concatenate(padded)), [len(column) for column in padded])
    return {name: part[: len(column)] for name, part, column in zip(columns, parts, numbers, strict=True)}
