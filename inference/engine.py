"""The torch engine: weights, paged cache and ragged batches whose rows do not feel each other.

Every row (one token of one request) goes through the same kernels of the same shapes whatever
stands beside it: rows are padded to one of a few counts, and only counts at which this machine's
kernels gave bit-identical rows when the engine started are used. A matrix product may sum in
another order for another count (on the CPUs tried: below four rows), which would let a
neighbour change the low bits and so, rarely, the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from inference.attention import geometry
from inference.blocks import Move
from inference.chat import ByteTokenizer, load_tokenizer
from inference.loop import BatchingEngine
from inference.lora import add_adapter
from inference.model import LanguageModel, load_model
from inference.paged import SPAN, PagedCache, make_rows, steady_tiles
from inference.ports import FeedTokens, Row
from inference.scheduler import Feed
from inference.types import ContextExceeded, InvalidRequest, Turn
from inference.watermark.marking import Marker

PREFILL_TOKENS = 96
"""Prompt tokens computed in a step beside one token for each slot."""
BLOCK_SIZE = 16
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CACHE_TOKENS = 32_768
"""Positions of the cache where nothing else is asked; memory is committed as they are written."""


class TorchForward:
    """The arithmetic behind ``TorchEngine``: one dtype on the model's device, a cache of ``cache_tokens`` positions.

    ``adapters`` maps (tenant, name) to the SHA-256 of one hung into the model under it.
    """

    def __init__(
        self,
        model: LanguageModel,
        chat: ByteTokenizer,
        slots: int,
        *,
        cache_tokens: int = CACHE_TOKENS,
        adapters: Mapping[tuple[str, str], bytes] | None = None,
    ) -> None:
        if chat.size > model.config.vocab_size:
            raise ValueError(
                f"tokenizer.json: expected at most {model.config.vocab_size} tokens as in config.json, got {chat.size}"
            )
        self.slots = slots
        self.budget = slots + PREFILL_TOKENS
        self.max_context = model.config.max_position_embeddings
        self.end = chat.end
        self.vocabulary = model.config.vocab_size
        self.block_size = BLOCK_SIZE
        self.blocks = -(-max(self.max_context, min(cache_tokens, slots * self.max_context)) // BLOCK_SIZE)
        self._model, self._chat, self._adapters = model, chat, dict(adapters or {})
        self._device, self._dtype = model.cosine.device, model.cosine.dtype
        self._digest = weights_digest(model)
        shape = geometry(model.config, self.blocks, BLOCK_SIZE)
        self._cache = PagedCache(shape, self._device, self._dtype)
        self._tiles = steady_tiles(shape, self._device, self._dtype, min(self.max_context, 8 * SPAN))
        # Markers and ids without text would let an answer forge a turn.
        self._banned = torch.tensor(
            [
                token
                for token in range(model.config.vocab_size)
                if token != chat.end and (token >= chat.size or not chat.piece(token))
            ],
            device=self._device,
        )
        self.row_counts: tuple[int, ...] = ()
        self.row_counts = self._steady_row_counts()

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """See ``Forward.encode``; refuses by size first, so encoding work is bounded."""
        size = sum(len(turn.text.encode()) for turn in turns)
        if size > self.max_context * self._chat.longest:
            raise ContextExceeded(f"turns: expected at most {self.max_context} tokens, {size} bytes cannot fit")
        return self._chat.encode(turns)

    def lineage(self, tenant: str, adapter: str) -> bytes:
        """See ``Forward.lineage``."""
        if not adapter:
            return self._digest
        if (tenant, adapter) not in self._adapters:
            # the same words whether it is another's or nobody's
            raise InvalidRequest("adapter: this tenant has none of that name")
        return self._digest + self._adapters[tenant, adapter]

    def adopt(self, key: tuple[str, str], folder: Path) -> None:
        """Hang in one more adapter while requests run: none can ask for it before all of it is there."""
        self._adapters[key] = add_adapter(self._model, key, folder)

    def piece(self, token: int) -> bytes:
        """See ``Forward.piece``."""
        return self._chat.piece(token)

    @torch.inference_mode()
    def rearrange(self, moves: Items[Move]) -> None:
        """See ``Forward.rearrange``."""
        self._cache.rearrange(moves)

    def logits(self, feeds: Items[FeedTokens]) -> list[Row]:
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
    def _hidden(self, feeds: Items[FeedTokens], cache: PagedCache) -> Tensor:
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

        def feed(row: int) -> FeedTokens:
            start = deep * (row % 3 == 1) + row % min(BLOCK_SIZE, deep or 1)
            blocks = range(row * each, row * each + start // BLOCK_SIZE + 1)
            return FeedTokens(Feed("", start, 1, True, tuple(blocks)), [tokens[row]])

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


def weights_digest(model: LanguageModel) -> bytes:
    """SHA-256 over names, shapes, dtypes and a sample of the bits of a model's tensors.

    It keeps caches of different models apart; it does not prove what the weights are.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sample = tensor.flatten()[:: max(1, tensor.numel() // 64)].float().cpu().numpy()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode() + sample.tobytes())
    return digest.digest()


class TorchEngine(BatchingEngine):
    """Serves one model folder (``config.json``, ``model.safetensors``, ``tokenizer.json``).

    ``max_batch`` requests run together, ``max_waiting`` more may wait. ``threads`` sets torch's
    threads for the whole process; ``device`` is torch's name of one; ``dtype`` is float32 or bfloat16.
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
        dtype: str = "float32",
        cache_tokens: int = CACHE_TOKENS,
        adapters: Mapping[tuple[str, str], Path] | None = None,
        reuse: bool = True,
        marker: Marker | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        chat = load_tokenizer(model_dir)
        model = load_model(model_dir, _DTYPES[dtype]).to(_usable(device))
        found = {key: add_adapter(model, key, folder) for key, folder in (adapters or {}).items()}
        forward = TorchForward(model, chat, max_batch, cache_tokens=cache_tokens, adapters=found)
        self.row_counts, self._own = forward.row_counts, forward
        super().__init__(forward, models=(model_dir.name,), max_waiting=max_waiting, reuse=reuse, marker=marker)

    def adopt(self, tenant: str, name: str, folder: Path) -> None:
        """Hang in one more adapter that this tenant alone may ask for; blocks, and steps go on.

        Raises ``ValueError`` where it does not fit, ``OSError`` where it cannot be read.
        """
        self._own.adopt((tenant, name), folder)


def _usable(device: str) -> torch.device:
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:
        # the first line: what follows is advice for debugging kernels
        raise ValueError(f"device {device!r} is not usable here: {str(error).splitlines()[0]}") from None


def shipped_model() -> Path:
    """The folder of the model that ships with the package."""
    return Path(__file__).parent / "models" / "glossary"
