"""The shape of a model as its ``config.json`` tells it. No torch."""

from __future__ import annotations

from pathlib import Path

import msgspec

MAX_CONFIG_BYTES = 1 << 20


class ModelConfig(msgspec.Struct, frozen=True):
    """The keys of ``config.json`` that the forward pass needs; others are ignored."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    head_dim: int | None = None

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads


def read_config(path: Path) -> ModelConfig:
    """Decode ``config.json``; raises ``ValueError`` naming what is wrong with it."""
    raw = path.read_bytes()
    if len(raw) > MAX_CONFIG_BYTES:
        raise ValueError(f"config.json: expected at most {MAX_CONFIG_BYTES} bytes, got {len(raw)}")
    try:
        config = msgspec.json.decode(raw, type=ModelConfig)
    except msgspec.MsgspecError as fault:
        raise ValueError(f"config.json: not a Llama-shaped configuration: {fault}") from None
    if config.num_attention_heads % config.num_key_value_heads:
        raise ValueError("config.json: num_attention_heads must be a multiple of key_value_heads")
    return config
