"""The parts that every forward over a torch model has in common: vocabulary, identity of the weights, cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Protocol

import torch

from inference.model.attention import geometry
from inference.model.lora import add_adapter
from inference.model.paged_attention import PagedCache
from inference.model.transformer import LanguageModel
from inference.ports import LogitsRow, Move, RowSummary, StepInput
from inference.types import ContextExceeded, InvalidRequest, Turn

BLOCK_SIZE = 16


class Vocabulary(Protocol):
    """A tokenizer as a forward needs it: ids below ``size``, ``end`` ends an answer, none is over ``longest`` bytes."""

    size: int
    end: int
    longest: int

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; empty for markers."""

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        """Ids of a conversation, ready for the answer to follow."""


class ModelForward:
    """A ``Forward`` but for ``logits``: one dtype on the model's device, a cache of ``cache_tokens`` positions.

    A step computes at most ``budget`` tokens. ``adapters`` maps (tenant, name) to the SHA-256 of an adapter that the
    model has loaded under that name.
    """

    def __init__(
        self,
        model: LanguageModel,
        chat: Vocabulary,
        slots: int,
        budget: int,
        cache_tokens: int,
        adapters: Mapping[tuple[str, str], bytes] | None,
    ) -> None:
        if chat.size > model.config.vocab_size:
            raise ValueError(
                f"tokenizer.json: expected at most {model.config.vocab_size} tokens as in config.json, got {chat.size}"
            )
        self.slots = slots
        self.budget = budget
        self.max_context = model.config.max_position_embeddings
        self.end = chat.end
        self.vocabulary = model.config.vocab_size
        self.block_size = BLOCK_SIZE
        self.blocks = -(-max(self.max_context, min(cache_tokens, slots * self.max_context)) // BLOCK_SIZE)
        self._model = model
        self._chat = chat
        self._adapters = dict(adapters or {})
        self._device = model.cosine.device
        self._dtype = model.cosine.dtype
        self._digest = weights_digest(model)
        self._shape = geometry(model.config, self.blocks, BLOCK_SIZE)
        self._cache = PagedCache(self._shape, self._device, self._dtype)
        self._banned = torch.tensor(_banned(chat, model.config.vocab_size), device=self._device, dtype=torch.int64)

    def logits(self, inputs: Items[StepInput]) -> Items[LogitsRow | RowSummary]:
        """See ``Forward.logits``."""
        raise NotImplementedError

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
            # the same words whether another tenant has it or none
            raise InvalidRequest("adapter: this tenant has none of that name")
        return self._digest + self._adapters[tenant, adapter]

    def load_adapter(self, key: tuple[str, str], folder: Path) -> None:
        """Load one more adapter while requests run: none can ask for it before all of it is there."""
        self._adapters[key] = add_adapter(self._model, key, folder)

    def piece(self, token: int) -> bytes:
        """See ``Forward.piece``."""
        return self._chat.piece(token)

    @torch.inference_mode()
    def rearrange(self, moves: Items[Move]) -> None:
        """See ``Forward.rearrange``."""
        self._cache.rearrange(moves)


def _banned(chat: Vocabulary, vocab: int) -> list[int]:
    """Tokens that no answer may contain: markers and ids without text would let it forge a turn."""
    return [token for token in range(vocab) if token != chat.end and (token >= chat.size or not chat.piece(token))]


def weights_digest(model: LanguageModel) -> bytes:
    """SHA-256 over names, shapes, dtypes and a sample of the bits of a model's tensors.

    It keeps caches of different models apart; it does not prove which weights they are.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sample = tensor.flatten()[:: max(1, tensor.numel() // 64)].float().cpu().numpy()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode() + sample.tobytes())
    return digest.digest()
