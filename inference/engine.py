"""The torch engine: weights, KV slots and ragged batches whose rows do not feel each other.

Every row (one token of one request) goes through the same kernels of the same shapes whatever
stands beside it: rows are padded to one of a few counts, and only counts at which this machine's
kernels gave bit-identical rows when the engine started are used. A matrix product may sum in
another order for another count (on the CPUs tried: below four rows), which would let a
neighbour change the low bits and so, rarely, the text.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from inference.chat import ChatTokenizer
from inference.loop import BatchingEngine
from inference.model import KV_BLOCK, KvCache, LanguageModel, load_model, make_rows
from inference.ports import FeedTokens, Row
from inference.types import ContextExceeded, Turn
from inference.watermark.marking import Marker

PREFILL_TOKENS = 96
"""Prompt tokens computed in a step beside one token for each slot."""


class TorchForward:
    """The arithmetic behind ``TorchEngine``: fp32 on the model's device, one cache slot per running request."""

    def __init__(self, model: LanguageModel, chat: ChatTokenizer, slots: int) -> None:
        if chat.size > model.config.vocab_size:
            raise ValueError(
                f"tokenizer.json: expected at most {model.config.vocab_size} tokens as in config.json, got {chat.size}"
            )
        self.slots = slots
        self.budget = slots + PREFILL_TOKENS
        self.max_context = model.config.max_position_embeddings
        self.end = chat.end
        self._model = model
        self._chat = chat
        self._device = model.cosine.device
        self._cache = KvCache(model.config, slots, self._device)
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

    def piece(self, token: int) -> bytes:
        """See ``Forward.piece``."""
        return self._chat.piece(token)

    def logits(self, feeds: Items[FeedTokens]) -> list[Row]:
        """See ``Forward.logits``."""
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for item in feeds:
            tokens.extend(item.tokens)
            slots.extend([item.feed.slot] * item.feed.count)
            positions.extend(range(item.feed.start, item.feed.start + item.feed.count))
            if item.feed.last:
                wanted.append(len(tokens) - 1)
        if not wanted:
            self._hidden(tokens, slots, positions)
            return []
        chosen = self._hidden(tokens, slots, positions)[wanted]
        return list(self._scores(chosen).cpu().numpy())

    def release(self, slot: int, length: int) -> None:
        """See ``Forward.release``; also keeps a NaN of one request from the next."""
        self._cache.clear(slot, length)

    @torch.inference_mode()
    def _hidden(self, tokens: list[int], slots: list[int], positions: list[int]) -> Tensor:
        pad = self._padding(len(tokens))
        scratch = [self._cache.scratch] * pad
        rows = make_rows(tokens + [0] * pad, slots + scratch, positions + [0] * pad, self._device)
        return self._model.step(rows, self._cache)[: len(tokens)]

    @torch.inference_mode()
    def _scores(self, hidden: Tensor) -> Tensor:
        count = len(hidden)
        scores = self._model.logits(functional.pad(hidden, (0, 0, 0, self._padding(count))))
        return scores[:count].index_fill(1, self._banned, -torch.inf)

    def _padding(self, count: int) -> int:
        return next(steady for steady in self.row_counts if steady >= count) - count

    def _steady_row_counts(self) -> tuple[int, ...]:
        """Powers of two at which a row's result equals that in the largest batch, bit for bit.

        Shapes select kernels and the order of sums, values do not, so comparing on random tokens
        finds a count that differs. Slots get rows at two depths, to split attention into groups.
        """
        largest = 1 << (self.budget - 1).bit_length()
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(self._model.config.vocab_size, (largest,), generator=draw).tolist()
        slots = [row % self.slots for row in range(largest)]
        deep = min(KV_BLOCK, self.max_context // 2)
        positions = [row // self.slots + deep * (row % 3 == 1) for row in range(largest)]
        self.row_counts = (largest,)
        hidden = self._hidden(tokens, slots, positions)
        reference = (hidden, self._scores(hidden))
        steady = [largest]
        for count in (1 << bit for bit in range(largest.bit_length() - 1)):
            self.row_counts = (count,)
            order = list(reversed(range(count)))
            found = self._hidden(
                [tokens[row] for row in order],
                [slots[row] for row in order],
                [positions[row] for row in order],
            ).flip(0)
            pairs = zip((found, self._scores(found)), reference, strict=True)
            if all(torch.equal(got, whole[:count]) for got, whole in pairs):
                steady.append(count)
        for slot in range(self.slots):
            self._cache.clear(slot, self.max_context)
        return tuple(sorted(steady))


class TorchEngine(BatchingEngine):
    """Serves one model folder (``config.json``, ``model.safetensors``, ``tokenizer.json``).

    ``max_batch`` requests run together, ``max_waiting`` more may wait. ``threads`` sets torch's
    threads for the whole process; ``device`` is torch's name of one. Raises ``ValueError`` or
    ``OSError`` for an unusable folder or device.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        max_batch: int = 32,
        threads: int | None = None,
        max_waiting: int = 1024,
        device: str = "cpu",
        marker: Marker | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        chat = ChatTokenizer.load(model_dir / "tokenizer.json")
        forward = TorchForward(load_model(model_dir).to(_usable(device)), chat, max_batch)
        self.row_counts = forward.row_counts
        super().__init__(forward, models=(model_dir.name,), max_waiting=max_waiting, marker=marker)


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
