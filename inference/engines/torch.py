"""The torch engine: weights, paged cache and ragged batches whose rows do not feel each other.

Every row (one token of one request) goes through the same kernels of the same shapes whatever
stands beside it: rows are padded to one of a few counts, and only counts at which this machine's
kernels gave bit-identical rows when the engine started are used. A matrix product may sum in
another order for another count (on the CPUs tried: below four rows), which would let a
neighbour change the low bits and so, rarely, the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from inference.batching.loop import BatchingEngine
from inference.chat.tokenizer import load_tokenizer
from inference.model.attention import geometry
from inference.model.forward import BLOCK_SIZE, ModelForward, Vocabulary
from inference.model.lora import add_adapter
from inference.model.paged_attention import SPAN, PagedCache, make_rows, steady_tiles
from inference.model.transformer import LanguageModel, load_model
from inference.ports import LogitsRow, ScheduledTokens, StepInput
from inference.watermark.marking import Marker

PREFILL_TOKENS = 96
"""Prompt tokens computed in a step beside one token for each slot."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_USUAL = {"cpu": "float32"}
CACHE_TOKENS = 32_768
"""Positions of the cache where nothing else is asked; memory is committed as they are written."""


class TorchForward(ModelForward):
    """The arithmetic behind ``TorchEngine`` on the CPU, and on any device that torch knows."""

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

    def logits(self, feeds: Items[StepInput]) -> list[LogitsRow]:
        """See ``Forward.logits``."""
        ends = [0]
        for item in feeds:
            ends.append(ends[-1] + item.feed.count)
        wanted = [end - 1 for item, end in zip(feeds, ends[1:], strict=True) if item.feed.last]
        try:
            hidden = self._hidden(feeds, self._cache)
            return list(self._scores(hidden[wanted]).float().cpu().numpy()) if wanted else []
        except torch.OutOfMemoryError:
            raise MemoryError from None

    @torch.inference_mode()
    def _hidden(self, feeds: Items[StepInput], cache: PagedCache) -> Tensor:
        count = sum(item.feed.count for item in feeds)
        rows = make_rows(feeds, self._padding(count), cache, self._tiles)
        return self._model.step(rows, cache)[:count]

    @torch.inference_mode()
    def _scores(self, hidden: Tensor) -> Tensor:
        count = len(hidden)
        scores = self._model.logits(functional.pad(hidden, (0, 0, 0, self._padding(count))))
        return scores[:count].index_fill(1, self._banned, -torch.inf)

    def _padding(self, count: int) -> int:
        return next(steady for steady in self.row_counts if steady >= count) - count

    @torch.inference_mode()
    def _steady_row_counts(self) -> tuple[int, ...]:
        """Row counts at which a row's result equals that in the largest batch, bit for bit.

        Shapes select kernels and the order of sums, values do not, so comparing on random tokens
        finds a count that differs. Rows stand at two depths, to split attention into groups.
        """
        bits = (self.budget - 1).bit_length()
        largest = 1 << bits
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(self._model.config.vocab_size, (largest,), generator=draw).tolist()
        deep = min(SPAN, self.max_context // 2)
        each = deep // BLOCK_SIZE + 2
        # a cache of its own: the rows need a history, and none of it may stay
        cache = PagedCache(geometry(self._model.config, largest * each, BLOCK_SIZE), self._device, self._dtype)
        for tensor in (*cache.keys, *cache.values):
            tensor[:, : cache.blank] = torch.randn(tensor[:1, :1].shape, generator=draw).to(tensor)

        def feed(row: int) -> StepInput:
            start = deep * (row % 3 == 1) + row % min(BLOCK_SIZE, deep or 1)
            blocks = range(row * each, row * each + start // BLOCK_SIZE + 1)
            return StepInput(ScheduledTokens("", start, 1, True, tuple(blocks)), [tokens[row]])

        rows = [feed(row) for row in range(largest)]
        self.row_counts = (largest,)
        hidden = self._hidden(rows, cache)
        reference = (hidden, self._scores(hidden))
        steady = [largest]
        for count in sorted({1 << bit for bit in range(bits)} | {3 << bit for bit in range(1, bits - 1)}):
            self.row_counts = (count,)
            found = self._hidden(rows[:count][::-1], cache).flip(0)
            pairs = zip((found, self._scores(found)), reference, strict=True)
            if all(torch.equal(got, whole[:count]) for got, whole in pairs):
                steady.append(count)
        return tuple(sorted(steady))


class TorchEngine(BatchingEngine):
    """Serves one model folder (``config.json``, ``model.safetensors``, ``tokenizer.json``).

    ``max_batch`` requests run together, ``max_waiting`` more may wait. ``threads`` sets torch's
    threads for the whole process; ``device`` is torch's name of one; ``dtype`` is float32 or bfloat16, by default the
    first on the CPU and the second elsewhere; ``cache_tokens`` positions of cache, by default what ``CACHE_TOKENS``
    says on the CPU and what is left of a CUDA device's memory. ``graphs`` False replays no captured steps there.
    ``adapters`` maps (tenant, name) to a folder with a LoRA adapter that only this tenant may ask for.
    Raises ``ValueError`` or ``OSError`` for an unusable folder or device.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        max_batch: int = 32,
        threads: int | None = None,
        max_waiting: int = 1024,
        device: str = "cpu",
        dtype: str | None = None,
        cache_tokens: int | None = None,
        adapters: Mapping[tuple[str, str], Path] | None = None,
        reuse: bool = True,
        marker: Marker | None = None,
        graphs: bool = True,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        chat = load_tokenizer(model_dir)
        place = _usable(device)
        try:
            model = load_model(model_dir, _DTYPES[dtype or _USUAL.get(place.type, "bfloat16")]).to(place)
            found = {key: add_adapter(model, key, folder) for key, folder in (adapters or {}).items()}
            forward = _forward(model, chat, max_batch, cache_tokens, found, graphs)
        except torch.OutOfMemoryError:
            told = "expected memory for the weights and a cache of one whole context at least"
            raise ValueError(f"device {device}: {told}; take a larger device or a smaller model") from None
        self.row_counts = forward.row_counts if isinstance(forward, TorchForward) else ()
        self._own = forward
        super().__init__(forward, models=(model_dir.name,), max_waiting=max_waiting, reuse=reuse, marker=marker)

    def adopt(self, tenant: str, name: str, folder: Path) -> None:
        """Hang in one more adapter that this tenant alone may ask for; blocks, and steps go on.

        Raises ``ValueError`` where it does not fit, ``OSError`` where it cannot be read.
        """
        self._own.adopt((tenant, name), folder)


def _forward(
    model: LanguageModel,
    chat: Vocabulary,
    slots: int,
    cache_tokens: int | None,
    adapters: Mapping[tuple[str, str], bytes],
    graphs: bool,
) -> ModelForward:
    if model.cosine.device.type != "cuda":
        return TorchForward(model, chat, slots, cache_tokens=cache_tokens or CACHE_TOKENS, adapters=adapters)
    # it imports Triton, which only such machines need
    from inference.model.forward_cuda import CudaForward

    return CudaForward(model, chat, slots, cache_tokens=cache_tokens, adapters=adapters, graphs=graphs)


def _usable(device: str) -> torch.device:
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        # the first line: what follows is advice for debugging kernels
        raise ValueError(f"device {device!r} is not usable here: {str(error).splitlines()[0]}") from None


def shipped_model() -> Path:
    """The folder of the model that ships with the package."""
    return Path(__file__).parents[1] / "shipped" / "glossary"
