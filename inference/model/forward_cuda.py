"""The forward of a CUDA device: paged attention and fused layers in Triton, steps of single tokens as CUDA graphs.

Requests feel each other's shapes here: a matrix product may sum in another order in another batch, so the low bits of
a row, and rarely a token, can differ from those of the same request alone. Latent attention, and requests with an
adapter, take the plain torch path of the CPU on the device: right, and slower.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.model.forward import BLOCK_SIZE, ModelForward, Vocabulary
from inference.model.fused import FusedDecoder, Where
from inference.model.paged_attention import MAX_TILE, make_rows
from inference.model.transformer import LanguageModel
from inference.ports import SHORT, LogitsQuery, LogitsRow, ScheduledTokens, Shortlist, StepInput
from inference.sampling.draw_torch import draw_and_topk, fetch_row
from inference.sampling.draw_triton import draw_rows

PREFILL_TOKENS = 2048
"""Prompt tokens computed in a step beside one token for each slot."""
MEMORY_SHARE = 0.8
"""Of the memory that is free once the weights are there, the part that the cache takes where nothing else is asked."""
Ints = NDArray[np.int32]
_ALIGNED = 16


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
        self._graphs: list[_Graph] = []
        self._upload = _Upload(self._device)
        if graphs and self._fused is not None:
            self._graphs = _captured(
                self._fused, self._device, slots, -(-self.max_context // BLOCK_SIZE), self._cache.scratch
            )

        self._warm()

    def _warm(self) -> None:
        """Have the kernels compiled before the first request, on a block that is nobody's."""
        scratch = (self._cache.scratch,)
        for ask in (LogitsQuery(False), LogitsQuery(False, 1.0, 0.5, SHORT)):
            self.logits(
                [StepInput(ScheduledTokens("", 0, count, True, scratch), [0] * count, None, ask) for count in (1, 2)]
            )

    @torch.inference_mode()
    def logits(self, feeds: Items[StepInput]) -> list[LogitsRow | Shortlist]:
        """See ``Forward.logits``."""
        tokens = np.fromiter(chain.from_iterable(item.tokens for item in feeds), dtype=np.int64)
        # an id out of range would end the device's context, and every request with it
        if tokens.min(initial=0) < 0 or tokens.max(initial=0) >= self.vocabulary:
            raise IndexError("expected token ids within the vocabulary")
        try:
            with torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext():
                hidden = self._hidden(feeds)
                return self._answers([item for item in feeds if item.feed.last], hidden)
        except torch.OutOfMemoryError:
            raise MemoryError from None

    def again(self, count: int) -> None:
        """Replay the captured step of ``count`` tokens and its logits on what was computed last, for measurements."""
        graph = next(graph for graph in self._graphs if graph.count >= count)
        graph.graph.replay()
        self._model.logits(graph.hidden[:count])

    def _answers(self, items: list[StepInput], hidden: Tensor) -> list[LogitsRow | Shortlist]:
        if not items:
            return []
        scores = self._model.logits(hidden)
        if len(self._banned):
            scores.index_fill_(1, self._banned, -torch.inf)
        short = [index for index, item in enumerate(items) if not item.ask.whole]
        if not short:
            return list(scores.float().cpu().numpy())
        asked = scores if len(short) == len(items) else scores[short]
        told = dict(zip(short, draw_and_topk(asked, [items[index].ask for index in short], draw_rows), strict=True))
        return [told[index] if index in told else fetch_row(scores, index) for index in range(len(items))]

    def _hidden(self, feeds: Items[StepInput]) -> Tensor:
        """Hidden states of the last row of each feed marked ``last``, in order."""
        if self._fused is not None and all(item.adapter is None for item in feeds):
            return self._quick(feeds)
        quick = [self._fused is not None and item.adapter is None for item in feeds]
        plain = [index for index, fits in enumerate(quick) if fits]
        other = [index for index, fits in enumerate(quick) if not fits]
        parts = [(plain, self._quick), (other, self._slow)]
        found, order = [], []
        for indices, compute in parts:
            if indices:
                found.append(compute([feeds[index] for index in indices]))
                order += [index for index in indices if feeds[index].feed.last]
        hidden = found[0] if len(found) == 1 else torch.cat(found)
        if order == sorted(order):
            return hidden
        return hidden[torch.tensor(np.argsort(order), device=self._device)]

    def _slow(self, feeds: Items[StepInput]) -> Tensor:
        rows = make_rows(feeds, 0, self._cache, self._tiles)
        ends = np.cumsum([item.feed.count for item in feeds]) - 1
        last = [end for end, item in zip(ends.tolist(), feeds, strict=True) if item.feed.last]
        return self._model.step(rows, self._cache)[last]

    def _quick(self, feeds: Items[StepInput]) -> Tensor:
        assert self._fused is not None
        last = [index for index, item in enumerate(feeds) if item.feed.last]
        graph = next((graph for graph in self._graphs if graph.count >= len(feeds)), None)
        if graph is not None and all(item.feed.count == 1 for item in feeds):
            hidden = graph.run(self._upload, feeds)[: len(feeds)]
            return hidden if len(last) == len(feeds) else hidden[last]
        # tokens that stand alone first, as the tiles want them
        order = sorted(range(len(feeds)), key=lambda index: feeds[index].feed.count > 1)
        ordered = [feeds[index] for index in order]
        where, ends = _layout(self._upload, ordered, self._fused.tokens_in_tile(), self._cache.scratch)
        place = dict(zip(order, ends, strict=True))
        hidden = self._fused.hidden(where)
        return hidden[[place[index] for index in last]]


class _Upload:
    """Numbers of a pass on their way to the device, through pinned memory where that is CUDA."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, values: Ints, target: Tensor | None = None) -> Tensor:
        held = torch.from_numpy(values)
        if self._device.type == "cuda":
            held = held.pin_memory()
        if target is None:
            return held.to(self._device, non_blocking=True)
        return target[: len(held)].copy_(held, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _Graph:
    """A captured step of ``count`` single tokens; ``numbers`` holds tokens, positions, then tables.

    ``where`` is held because the graph reads it at its address.
    """

    count: int
    scratch: int
    numbers: Tensor
    where: Where
    hidden: Tensor
    graph: torch.cuda.CUDAGraph

    def run(self, upload: _Upload, feeds: Items[StepInput]) -> Tensor:
        """Hidden states of the feeds, and of padding rows that touch nothing of theirs."""
        pad = [0] * (self.count - len(feeds))
        tokens = [item.tokens[0] for item in feeds] + pad
        positions = [item.feed.start for item in feeds] + pad
        table = _table(feeds, self.count, self.scratch)
        upload(np.concatenate((np.array([tokens, positions], dtype=np.int32), table)).ravel(), self.numbers)
        self.graph.replay()
        return self.hidden


def _captured(decoder: FusedDecoder, device: torch.device, slots: int, width: int, scratch: int) -> list[_Graph]:
    """A graph for each power of two up to the first that holds ``slots``, smallest first."""
    sizes = [1 << bit for bit in range((slots - 1).bit_length() + 1)]
    pool, found = torch.cuda.graph_pool_handle(), []
    # the largest first: the others find their memory in its pool
    for count in reversed(sizes):
        numbers = torch.zeros((2 + width) * count, device=device, dtype=torch.int32)
        numbers[2 * count :] = scratch
        parts = numbers.view(2 + width, count)
        every = torch.arange(count, device=device, dtype=torch.int32)
        where = Where(parts[0], parts[1], every, parts[2:], (every, torch.ones_like(every)), None)
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.inference_mode(), torch.cuda.device(device):
            # compiled and warmed outside: a capture may do neither
            with torch.cuda.stream(stream):
                decoder.hidden(where)
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                hidden = decoder.hidden(where)
        found.append(_Graph(count, scratch, numbers, where, hidden, graph))
    return found[::-1]


def _table(feeds: Items[StepInput], columns: int, scratch: int) -> Ints:
    """``[blocks, columns]``: the blocks of each feed, filled up with ``scratch``."""
    width = max(len(item.feed.blocks) for item in feeds)
    filler = (scratch,) * width
    lines = chain.from_iterable(item.feed.blocks + filler[len(item.feed.blocks) :] for item in feeds)
    table = np.full((columns, width), scratch, dtype=np.int32)
    table[: len(feeds)] = np.fromiter(lines, dtype=np.int32, count=width * len(feeds)).reshape(-1, width)
    return np.ascontiguousarray(table.T)


def _layout(upload: _Upload, feeds: list[StepInput], each: int, scratch: int) -> tuple[Where, list[int]]:
    """Where the rows of ``feeds`` stand, single tokens first, and the last row of each feed."""
    counts = np.array([item.feed.count for item in feeds])
    begins = np.concatenate(([0], counts.cumsum()[:-1]))
    tokens = [token for item in feeds for token in item.tokens]
    positions = np.concatenate([np.arange(item.feed.start, item.feed.start + item.feed.count) for item in feeds])
    owners = np.repeat(np.arange(len(feeds)), counts)
    table = _table(feeds, len(feeds), scratch)
    alone = int((counts == 1).sum())
    tiles = [
        (begin + step, min(each, count - step))
        for begin, count in zip(begins[alone:].tolist(), counts[alone:].tolist(), strict=True)
        for step in range(0, count, each)
    ]
    firsts, rows = ([tile[side] for tile in tiles] for side in (0, 1))
    lists = (tokens, positions, owners, table.ravel(), np.arange(alone), np.ones(alone), firsts, rows)
    parts = _sent(upload, [np.asarray(values, dtype=np.int32) for values in lists])
    where = Where(
        tokens=parts[0],
        positions=parts[1],
        owners=parts[2],
        tables=parts[3].view(table.shape),
        singles=(parts[4], parts[5]) if alone else None,
        chunks=(parts[6], parts[7]) if tiles else None,
    )
    return where, (begins + counts - 1).tolist()


def _sent(upload: _Upload, lines: Items[Ints]) -> list[Tensor]:
    """The lines on the device, in one transfer.

    Each begins at a multiple of ``_ALIGNED`` bytes: Triton compiles a kernel anew for pointers that do not.
    """
    padded = [np.pad(line, (0, -len(line) % (_ALIGNED // line.itemsize))) for line in lines]
    parts = torch.split(upload(np.concatenate(padded)), [len(line) for line in padded])
    return [part[: len(line)] for part, line in zip(parts, lines, strict=True)]


def _free_positions(model: LanguageModel) -> int:
    free, _ = torch.cuda.mem_get_info(model.cosine.device)
    config = model.config
    width = config.head_size * 2 * config.kv_heads
    if config.latent:
        width = (config.kv_lora_rank or 0) + config.rope_size
    return int(free * MEMORY_SHARE) // (width * config.num_hidden_layers * model.cosine.element_size())
