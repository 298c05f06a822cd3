"""Models of known shapes with random weights, made on a device, and the bytes that a step of theirs must read."""

from __future__ import annotations

import numpy as np
import torch

from inference.model.config import ModelConfig, RopeScaling
from inference.model.transformer import LanguageModel, build_model
from inference.types import Turn

CONTEXT = 8192
_LLAMA3 = RopeScaling("llama3", None, None, 8.0, 8192, 1.0, 4.0)
SHAPES = {
    "1b": ModelConfig(128_256, 2048, 8192, 16, 32, CONTEXT, 8, rope_theta=5e5, rope_scaling=_LLAMA3, head_dim=64),
    "8b": ModelConfig(
        128_256, 4096, 14_336, 32, 32, CONTEXT, 8, rope_theta=5e5, rope_scaling=_LLAMA3, tie_word_embeddings=False
    ),
}
"""Llama-3.2-1B and Llama-3.1-8B, but for the context, which is cut to 8192."""


class EndlessVocabulary:
    """A vocabulary without an end, so that answers have the length asked for; a prompt's text is "seed count"."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.end = size
        self.longest = 64

    def piece(self, token: int) -> bytes:
        return b"a"

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        seed, count = map(int, turns[-1].text.split())
        ids: list[int] = np.random.default_rng(seed).integers(0, self.size, count).tolist()
        return ids


def random_model(config: ModelConfig, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> LanguageModel:
    """A model with random weights, made on the device."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in LanguageModel(config).state_dict().items()}
    generator = torch.Generator(device).manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        drawn = torch.empty(shape, device=device, dtype=dtype).normal_(0.0, 0.02, generator=generator)
        tensors[name] = drawn + 1.0 if "norm" in name else drawn
    return build_model(config, tensors, dtype).to(device)


def step_bytes(model: LanguageModel, batch: int, positions: int) -> int:
    """Bytes that a step of ``batch`` tokens must read: all weights but the looked-up embeddings, and the cache."""
    config, size = model.config, model.cosine.element_size()
    weights = sum(part.numel() for part in model.parameters())
    if not config.tie_word_embeddings:
        weights -= config.vocab_size * config.hidden_size
    cache = 2 * config.num_hidden_layers * config.kv_heads * config.head_size * positions * batch
    return (weights + cache) * size
