"""The forward of a CUDA device: paged attention and fused layers in Triton, steps of single tokens as CUDA graphs.

It is not batch-invariant: a matrix product may sum in another order in another batch, so the low bits of a row, and
rarely a token, can differ from those of the same request alone. Latent attention, and requests with an adapter, take
the plain torch path of the CPU on the device: right, and slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from collections.abc import Sequence as Items
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from inference.model.cuda_graphs import StepGraph, capture
from inference.model.forward import BLOCK_SIZE, ModelForward, Vocabulary
from inference.model.fused import FusedDecoder
from inference.model.paged_attention import MAX_TILE, make_rows
from inference.model.pass_layout import Upload, lay_out
from inference.model.transformer import LanguageModel
from inference.ports import TOURNAMENT_TOP, LogitsQuery, LogitsRow, RowSummary, ScheduledTokens, StepInput
from inference.sampling.draw_torch import draw_and_topk, fetch_row
from inference.sampling.draw_triton import draw_rows

PREFILL_TOKENS = 2048
"""Prompt tokens computed in a step beside one token for each slot."""
MEMORY_SHARE = 0.8
"""Part of the memory left by the weights that the cache takes where nothing else is asked."""


class CudaForward(ModelForward):
    """Serves a model on the CUDA device that it is on; ``graphs`` False launches every kernel by itself."""

    def __init__(
        self,
        model: LanguageModel,
        chat: Vocabulary,
        slots: int,
        *,
        cache_tokens: int | None = None,
        adapters: Mapping[tuple[str, str], bytes] | None = None,
        graphs: bool = True,
    ) -> None:
        if cache_tokens is None:
            cache_tokens = _free_positions(model)
        super().__init__(model, chat, slots, slots + PREFILL_TOKENS, cache_tokens, adapters)
        self._fused = None if model.config.latent else FusedDecoder(model, self._cache)
        largest = 1 << (max(MAX_TILE, self._shape.group) - 1).bit_length()
        self._tiles = tuple(1 << bit for bit in range(largest.bit_length()))
        self._upload = Upload(self._device)
        self._graphs: list[StepGraph] = []
        if graphs and self._fused is not None:
            blocks = -(-self.max_context // BLOCK_SIZE)
            self._graphs = capture(self._fused, self._device, slots, blocks, self._cache.scratch)
        self._warm()

    def _warm(self) -> None:
        """Have the kernels compiled before the first request, on a block that no request holds."""
        scratch = (self._cache.scratch,)
        for query in (LogitsQuery(False), LogitsQuery(False, 1.0, 0.5, TOURNAMENT_TOP)):
            single, chunk = (ScheduledTokens("", 0, count, True, scratch) for count in (1, 2))
            self.logits([StepInput(single, [0], None, query), StepInput(chunk, [0, 0], None, query)])

    @torch.inference_mode()
    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow | RowSummary]:
        """See ``Forward.logits``."""
        tokens = np.fromiter(chain.from_iterable(item.tokens for item in inputs), dtype=np.int64)
        # an id out of range would end the device's context, and every request with it
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= self.vocabulary:
            raise IndexError(f"expected token ids below {self.vocabulary}, got others")
        try:
            with torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext():
                hidden = self._hidden(inputs)
                return self._answers([item for item in inputs if item.scheduled.last], hidden)
        except torch.OutOfMemoryError:
            raise MemoryError from None

    def replay(self, count: int) -> None:
        """Replay the captured step of ``count`` tokens and its logits on the last numbers, for measurements."""
        graph = next(graph for graph in self._graphs if graph.count >= count)
        graph.graph.replay()
        self._model.logits(graph.hidden[:count])

    def _answers(self, items: list[StepInput], hidden: Tensor) -> list[LogitsRow | RowSummary]:
        """Rows or summaries of ``[items, width]`` hidden states, as the items' queries ask."""
        if not items:
            return []
        scores = self._model.logits(hidden)
        if len(self._banned):
            scores.index_fill_(1, self._banned, -torch.inf)
        summed = [index for index, item in enumerate(items) if not item.query.whole]
        if not summed:
            return list(scores.float().cpu().numpy())
        chosen = scores if len(summed) == len(items) else scores[summed]
        summaries = draw_and_topk(chosen, [items[index].query for index in summed], draw_rows)
        found = dict(zip(summed, summaries, strict=True))
        return [found[index] if index in found else fetch_row(scores, index) for index in range(len(items))]

    def _hidden(self, inputs: Items[StepInput]) -> Tensor:
        """Hidden states of the last row of each input marked ``last``, in order: ``[inputs marked last, width]``."""
        if self._fused is not None and all(item.adapter is None for item in inputs):
            return self._fused_hidden(inputs)
        fits = [self._fused is not None and item.adapter is None for item in inputs]
        fused = [index for index, fit in enumerate(fits) if fit]
        plain = [index for index, fit in enumerate(fits) if not fit]
        parts: list[Tensor] = []
        order: list[int] = []
        for indices, compute in ((fused, self._fused_hidden), (plain, self._plain_hidden)):
            if indices:
                parts.append(compute([inputs[index] for index in indices]))
                order += [index for index in indices if inputs[index].scheduled.last]
        hidden = parts[0] if len(parts) == 1 else torch.cat(parts)
        if order == sorted(order):
            return hidden
        return hidden[torch.tensor(np.argsort(order), device=self._device)]

    def _plain_hidden(self, inputs: Items[StepInput]) -> Tensor:
        """As ``_hidden``, on the path of the CPU."""
        rows = make_rows(inputs, 0, self._cache, self._tiles)
        ends = np.cumsum([item.scheduled.count for item in inputs]) - 1
        last = [end for end, item in zip(ends.tolist(), inputs, strict=True) if item.scheduled.last]
        return self._model.step(rows, self._cache)[last]

    def _fused_hidden(self, inputs: Items[StepInput]) -> Tensor:
        """As ``_hidden``, with the fused kernels: a graph where every input is a single token."""
        assert self._fused is not None
        last = [index for index, item in enumerate(inputs) if item.scheduled.last]
        graph = next((graph for graph in self._graphs if graph.count >= len(inputs)), None)
        if graph is not None and all(item.scheduled.count == 1 for item in inputs):
            hidden = graph.run(self._upload, inputs)[: len(inputs)]
            return hidden if len(last) == len(inputs) else hidden[last]
        # tokens that stand alone first, as the tiles want them
        order = sorted(range(len(inputs)), key=lambda index: inputs[index].scheduled.count > 1)
        ordered = [inputs[index] for index in order]
        layout = lay_out(self._upload, ordered, self._fused.tokens_in_tile(), self._cache.scratch)
        last_rows = dict(zip(order, layout.last_rows, strict=True))
        hidden = self._fused.hidden(layout.inputs)
        return hidden[[last_rows[index] for index in last]]


def _free_positions(model: LanguageModel) -> int:
    """Positions of cache that fit into ``MEMORY_SHARE`` of the free memory."""
    free, _ = torch.cuda.mem_get_info(model.cosine.device)
    config = model.config
    width = config.head_size * 2 * config.kv_heads
    if config.latent:
        width = (config.kv_lora_rank or 0) + config.rope_size
    return int(free * MEMORY_SHARE) // (width * config.num_hidden_layers * model.cosine.element_size())
