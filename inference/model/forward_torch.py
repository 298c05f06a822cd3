"""The forward in plain torch: batch-invariant, on the CPU and on any device that torch knows.

Batch-invariant: a row's result (a row is one token of one request) does not depend on the other rows, bit for bit.
Every row goes through the same kernels of the same shapes in any company: rows are padded to one of a few
counts, and only counts at which this machine's kernels gave bit-identical rows when the engine started are used. A
matrix product may sum in another order for another count (on the CPUs tried: below four rows), which would let a
neighbour change the low bits and so, rarely, the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items

import torch
from torch import Tensor
from torch.nn import functional

from inference.model.attention import geometry
from inference.model.forward import BLOCK_SIZE, ModelForward, Vocabulary
from inference.model.paged_attention import SPAN, PagedCache, make_rows, steady_tiles
from inference.model.transformer import LanguageModel
from inference.ports import LogitsRow, ScheduledTokens, StepInput

PREFILL_TOKENS = 96
"""Prompt tokens computed in a step beside one token for each slot."""
CACHE_TOKENS = 32_768
"""Positions of the cache where nothing else is asked; memory is committed as they are written."""


class TorchForward(ModelForward):
    """The arithmetic behind ``TorchEngine`` where the device is not CUDA."""

    def __init__(
        self,
        model: LanguageModel,
        chat: Vocabulary,
        slots: int,
        *,
        cache_tokens: int = CACHE_TOKENS,
        adapters: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        super().__init__(model, chat, slots, slots + PREFILL_TOKENS, cache_tokens, adapters)
        self._tiles = steady_tiles(self._shape, self._device, self._dtype, min(self.max_context, 8 * SPAN))
        self.row_counts: tuple[int, ...] = ()
        self.row_counts = self._steady_row_counts()

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow]:
        """See ``Forward.logits``."""
        ends = [0]
        for item in inputs:
            ends.append(ends[-1] + item.scheduled.count)
        wanted = [end - 1 for item, end in zip(inputs, ends[1:], strict=True) if item.scheduled.last]
        try:
            hidden = self._hidden(inputs, self._cache)
            return list(self._scores(hidden[wanted]).float().cpu().numpy()) if wanted else []
        except torch.OutOfMemoryError:
            raise MemoryError from None

    @torch.inference_mode()
    def _hidden(self, inputs: Items[StepInput], cache: PagedCache) -> Tensor:
        """Hidden states ``[rows, width]``, one row for each token."""
        count = sum(item.scheduled.count for item in inputs)
        rows = make_rows(inputs, self._padding(count), cache, self._tiles)
        return self._model.step(rows, cache)[:count]

    @torch.inference_mode()
    def _scores(self, hidden: Tensor) -> Tensor:
        """Logits ``[rows, vocab]`` of hidden states ``[rows, width]``; banned tokens get -inf."""
        count = len(hidden)
        scores = self._model.logits(functional.pad(hidden, (0, 0, 0, self._padding(count))))
        return scores[:count].index_fill(1, self._banned, -torch.inf)

    def _padding(self, count: int) -> int:
        return next(steady for steady in self.row_counts if steady >= count) - count

    @torch.inference_mode()
    def _steady_row_counts(self) -> tuple[int, ...]:
        """Row counts at which a row's result equals that in the largest batch, bit for bit.

        Shapes select kernels and the order of sums, values do not, so comparing on random tokens finds a count that
        differs.
        """
        bits = (self.budget - 1).bit_length()
        largest = 1 << bits
        inputs, cache = self._random_inputs(largest)
        self.row_counts = (largest,)
        hidden = self._hidden(inputs, cache)
        reference = (hidden, self._scores(hidden))
        steady = [largest]
        for count in sorted({1 << bit for bit in range(bits)} | {3 << bit for bit in range(1, bits - 1)}):
            self.row_counts = (count,)
            # in reverse order, so that a row's place is seen not to matter either
            hidden = self._hidden(inputs[:count][::-1], cache).flip(0)
            pairs = zip((hidden, self._scores(hidden)), reference, strict=True)
            if all(torch.equal(part, whole[:count]) for part, whole in pairs):
                steady.append(count)
        return tuple(sorted(steady))

    def _random_inputs(self, count: int) -> tuple[list[StepInput], PagedCache]:
        """Inputs of one random token each over a cache of random positions.

        Rows stand at two depths, which splits attention into groups. The cache is their own: they need a history, and
        none of it may stay.
        """
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self._model.config.vocab_size, (count,), generator=generator).tolist()
        deep = min(SPAN, self.max_context // 2)
        blocks_each = deep // BLOCK_SIZE + 2
        shape = geometry(self._model.config, count * blocks_each, BLOCK_SIZE)
        cache = PagedCache(shape, self._device, self._dtype)
        for tensor in (*cache.keys, *cache.values):
            tensor[:, : cache.blank] = torch.randn(tensor[:1, :1].shape, generator=generator).to(tensor)

        def random_input(row: int) -> StepInput:
            start = deep * (row % 3 == 1) + row % min(BLOCK_SIZE, deep or 1)
            first = row * blocks_each
            blocks = tuple(range(first, first + start // BLOCK_SIZE + 1))
            return StepInput(ScheduledTokens("", start, 1, True, blocks), [tokens[row]])

        return [random_input(row) for row in range(count)], cache
