"""The shape of a model, read from its ``config.json``. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

MAX_CONFIG_BYTES = 1 << 20
FAMILIES = ("llama", "qwen2", "qwen3", "deepseek_v2", "deepseek_v3")


class RopeScaling(msgspec.Struct, frozen=True):
    """``rope_scaling`` (or ``rope_parameters``); which fields count depends on ``rope_type``."""

    rope_type: str | None = None
    type: str | None = None
    """The older spelling of ``rope_type``."""
    rope_theta: float | None = None
    factor: float = 1.0
    original_max_position_embeddings: int | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True

    @property
    def kind(self) -> str:
        return self.rope_type or self.type or "default"


class ModelConfig(msgspec.Struct, frozen=True):
    """The keys of ``config.json`` that the forward pass needs; others are ignored."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    num_key_value_heads: int | None = None
    model_type: str = "llama"
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_parameters: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    hidden_act: Literal["silu"] = "silu"
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    head_dim: int | None = None
    # multi-head latent attention
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    rope_interleave: bool = True
    # mixture of experts
    n_routed_experts: int | None = None
    n_shared_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int = 0
    first_k_dense_replace: int = 0
    n_group: int | None = None
    topk_group: int | None = None
    topk_method: str = "greedy"
    norm_topk_prob: bool = False
    routed_scaling_factor: float = 1.0

    @property
    def latent(self) -> bool:
        """True where the cache holds one compressed latent per position instead of keys and values."""
        return self.model_type.startswith("deepseek")

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def rope_size(self) -> int:
        """Dimensions of a head that get rotary positions."""
        return self.qk_rope_head_dim if self.latent else self.head_size

    @property
    def scaling(self) -> RopeScaling:
        return self.rope_parameters or self.rope_scaling or RopeScaling()

    @property
    def theta(self) -> float:
        return self.scaling.rope_theta or self.rope_theta

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias or self.model_type == "qwen2"

    @property
    def output_bias(self) -> bool:
        return self.attention_bias and self.model_type != "qwen2"

    def routed(self, layer: int) -> bool:
        """True where a layer's feed-forward part is a mixture of experts."""
        return self.n_routed_experts is not None and self.latent and layer >= self.first_k_dense_replace


def read_config(path: Path) -> ModelConfig:
    """Decode ``config.json``; raises ``ValueError`` naming what is wrong with it."""
    with path.open("rb") as file:
        raw = file.read(MAX_CONFIG_BYTES + 1)
    return decode_config(raw)


def decode_config(raw: bytes) -> ModelConfig:
    """A configuration from its bytes; raises ``ValueError`` naming what is wrong with it."""
    if len(raw) > MAX_CONFIG_BYTES:
        raise ValueError(f"config.json: expected at most {MAX_CONFIG_BYTES} bytes, got {len(raw)} or more")
    try:
        config = msgspec.json.decode(raw, type=ModelConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ValueError(f"config.json: not a configuration of a known shape: {fault}") from None
    _check(config)
    return config


def _check(config: ModelConfig) -> None:
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"config.json: expected model_type to be one of {', '.join(FAMILIES)}, got {config.model_type[:64]!r}"
        )
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    for name in (*sizes, "max_position_embeddings", "kv_heads", "rope_size"):
        if not 1 <= getattr(config, name) <= 1 << 24:
            raise ValueError(f"config.json: expected {name} of 1 to {1 << 24}, got {getattr(config, name)}")
    if config.num_attention_heads % config.kv_heads:
        raise ValueError(
            f"config.json: expected num_attention_heads to be a multiple of {config.kv_heads} key heads, got "
            f"{config.num_attention_heads}"
        )
    if config.rope_size % 2:
        raise ValueError(f"config.json: expected an even number of rotary dimensions of a head, got {config.rope_size}")
    if config.use_sliding_window:
        raise ValueError(
            "config.json: expected attention over all positions, got use_sliding_window; serve another model"
        )
    if config.scaling.kind not in ("default", "linear", "llama3", "yarn"):
        raise ValueError(
            f"config.json: expected rope_type to be default, linear, llama3 or yarn, got {config.scaling.kind[:64]!r}"
        )
    if not config.scaling.factor >= 1.0:
        raise ValueError(f"config.json: expected a rope factor of at least 1, got {config.scaling.factor}")
    if config.latent:
        _check_latent(config)


def _check_latent(config: ModelConfig) -> None:
    sizes = (config.kv_lora_rank or 0, config.qk_nope_head_dim, config.v_head_dim)
    if min(sizes) < 1 or (config.q_lora_rank is not None and config.q_lora_rank < 1):
        raise ValueError(
            f"config.json: expected kv_lora_rank, qk_nope_head_dim and v_head_dim of at least 1, got {sizes}"
        )
    if config.n_routed_experts is None:
        return
    groups = config.n_group or 1
    experts, chosen = config.n_routed_experts, config.num_experts_per_tok or 0
    if not (1 <= chosen <= experts and experts % groups == 0 and config.moe_intermediate_size >= 1):
        raise ValueError(
            f"config.json: expected experts in equal groups and at most all of them per token, got {experts} experts, "
            f"{groups} groups, {chosen} per token"
        )
    if not 1 <= (config.topk_group or 1) <= groups:
        raise ValueError(f"config.json: expected topk_group of 1 to {groups}, got {config.topk_group}")
    if config.model_type == "deepseek_v2" and config.topk_method not in ("greedy", "group_limited_greedy"):
        raise ValueError(
            f"config.json: expected topk_method greedy or group_limited_greedy, got {config.topk_method[:64]!r}"
        )
