"""Captured steps of single tokens (CUDA graphs): one launch for all kernels of a step."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.model.fused import FusedDecoder, PassInputs
from inference.model.pass_layout import Upload, block_table
from inference.ports import StepInput


@dataclass(frozen=True, slots=True)
class StepGraph:
    """A captured step of ``count`` single tokens.

    ``numbers``, int32 ``[(2 + blocks) * count]``, holds tokens, positions, then tables. ``inputs`` are views, kept
    because the graph reads them at their addresses. ``hidden``: ``[count, width]``.
    """

    count: int
    scratch: int
    numbers: Tensor
    inputs: PassInputs
    hidden: Tensor
    graph: torch.cuda.CUDAGraph

    def run(self, upload: Upload, inputs: Items[StepInput]) -> Tensor:
        """Hidden states of the inputs, and of padding rows that touch nothing of theirs: ``[count, width]``."""
        pad = [0] * (self.count - len(inputs))
        tokens = [item.tokens[0] for item in inputs] + pad
        positions = [item.scheduled.start for item in inputs] + pad
        table = block_table(inputs, self.count, self.scratch)
        upload(np.concatenate((np.array([tokens, positions], dtype=np.int32), table)).ravel(), self.numbers)
        self.graph.replay()
        return self.hidden


def capture(decoder: FusedDecoder, device: torch.device, slots: int, blocks: int, scratch: int) -> list[StepGraph]:
    """A graph for each power of two up to the first that holds ``slots``, smallest first.

    Each request has room for ``blocks`` blocks.
    """
    counts = [1 << bit for bit in range((slots - 1).bit_length() + 1)]
    pool = torch.cuda.graph_pool_handle()
    # the largest first: the others find their memory in its pool
    graphs = [_captured(decoder, device, count, blocks, scratch, pool) for count in reversed(counts)]
    return graphs[::-1]


def _captured(
    decoder: FusedDecoder, device: torch.device, count: int, blocks: int, scratch: int, pool: Any
) -> StepGraph:
    numbers = torch.zeros((2 + blocks) * count, device=device, dtype=torch.int32)
    numbers[2 * count :] = scratch
    parts = numbers.view(2 + blocks, count)
    rows = torch.arange(count, device=device, dtype=torch.int32)
    inputs = PassInputs(parts[0], parts[1], rows, parts[2:], (rows, torch.ones_like(rows)), None)
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.inference_mode(), torch.cuda.device(device):
        # compiled and warmed outside: a capture may do neither
        with torch.cuda.stream(stream):
            decoder.hidden(inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            hidden = decoder.hidden(inputs)
    return StepGraph(count, scratch, numbers, inputs, hidden, graph)
