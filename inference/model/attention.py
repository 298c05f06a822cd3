"""Attention in torch: grouped-query heads, and DeepSeek's latent heads, over the paged cache."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.model.config import ModelConfig
from inference.model.layers import Linear, RmsNorm, rotate
from inference.model.paged_attention import Geometry, Rows, attend
from inference.model.rope import latent_scale

Layer: TypeAlias = tuple[Tensor, Tensor | None]
Turn: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines, each ``[rows, 1, rope_size]``."""


def geometry(config: ModelConfig, blocks: int, block_size: int) -> Geometry:
    """The cache that a model's attention needs."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if config.latent:
        assert config.kv_lora_rank is not None
        return Geometry(layers, 1, heads, config.kv_lora_rank + config.rope_size, 0, blocks, block_size)
    size = config.head_size
    return Geometry(layers, config.kv_heads, heads // config.kv_heads, size, size, blocks, block_size)


class GroupedAttention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023) with the biases and head norms of Llama, Qwen2 and Qwen3."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = config.num_attention_heads, config.kv_heads, config.head_size
        width = config.hidden_size
        self.q_proj = Linear(width, self.heads * self.head, bias=config.qkv_bias)
        self.k_proj = Linear(width, self.kv_heads * self.head, bias=config.qkv_bias)
        self.v_proj = Linear(width, self.kv_heads * self.head, bias=config.qkv_bias)
        self.o_proj = Linear(self.heads * self.head, width, bias=config.output_bias)
        normed = config.model_type == "qwen3"
        self.q_norm = RmsNorm(self.head, config.rms_norm_eps) if normed else nn.Identity()
        self.k_norm = RmsNorm(self.head, config.rms_norm_eps) if normed else nn.Identity()

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Causal attention within each row of ``[batch, time, width]``, for training."""
        batch, time, _ = x.shape
        query = self.q_norm(self.q_proj(x).view(batch, time, self.heads, self.head)).transpose(1, 2)
        key = self.k_norm(self.k_proj(x).view(batch, time, self.kv_heads, self.head)).transpose(1, 2)
        value = self.v_proj(x).view(batch, time, self.kv_heads, self.head).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            rotate(query, cosine, sine), rotate(key, cosine, sine), value, is_causal=True, enable_gqa=True
        )
        return torch.as_tensor(self.o_proj(mixed.transpose(1, 2).reshape(batch, time, -1)))

    def step(self, x: Tensor, rows: Rows, layer: Layer, turn: Turn) -> Tensor:
        """Write ``[rows, width]`` into the cache and attend each to its own request up to its own position."""
        keys, values = layer
        assert values is not None
        count = len(x)
        query = self.q_norm(self.q_proj.step(x, rows).view(count, self.heads, self.head))
        key = self.k_norm(self.k_proj.step(x, rows).view(count, self.kv_heads, self.head))
        value = self.v_proj.step(x, rows).view(count, self.kv_heads, self.head)
        keys[:, rows.blocks, rows.offsets] = rotate(key, *turn).transpose(0, 1)
        values[:, rows.blocks, rows.offsets] = value.transpose(0, 1)
        query = rotate(query, *turn).view(count, self.kv_heads, -1, self.head) * self.head**-0.5
        mixed = attend(query, keys, values, rows, self.head)
        return self.o_proj.step(mixed.view(count, -1), rows)


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, Liu et al. 2024), its up-projections absorbed into query and output.

    The cache holds one latent and one turned key part per position, shared by all heads: attention is that of a
    single key head whose values are the latent.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.kv_lora_rank is not None
        self.heads, self.rank = config.num_attention_heads, config.kv_lora_rank
        self.plain, self.turned, self.value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.paired = config.rope_interleave or config.model_type == "deepseek_v2"
        self.scale = latent_scale(config)
        width, bias, queries = config.hidden_size, config.attention_bias, self.heads * (self.plain + self.turned)
        self.narrow = config.q_lora_rank is not None
        if config.q_lora_rank is None:
            self.q_proj = Linear(width, queries)
        else:
            self.q_a_proj = Linear(width, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = RmsNorm(config.q_lora_rank, 1e-6)
            self.q_b_proj = Linear(config.q_lora_rank, queries)
        self.kv_a_proj_with_mqa = Linear(width, self.rank + self.turned, bias=bias)
        self.kv_a_layernorm = RmsNorm(self.rank, 1e-6)
        self.kv_b_proj = Linear(self.rank, self.heads * (self.plain + self.value))
        self.o_proj = Linear(self.heads * self.value, width, bias=bias)

    def step(self, x: Tensor, rows: Rows, layer: Layer, turn: Turn) -> Tensor:
        """As ``GroupedAttention.step``."""
        keys, count = layer[0], len(x)
        if self.narrow:
            asked = self.q_b_proj.step(self.q_a_layernorm(self.q_a_proj.step(x, rows)), rows)
        else:
            asked = self.q_proj.step(x, rows)
        plain, turned = torch.split(asked.view(count, self.heads, -1), [self.plain, self.turned], dim=-1)
        latent, shared = torch.split(self.kv_a_proj_with_mqa.step(x, rows), [self.rank, self.turned], dim=-1)
        key = torch.cat((self.kv_a_layernorm(latent), self._turn(shared[:, None], turn)[:, 0]), dim=-1)
        keys[0, rows.blocks, rows.offsets] = key
        up = self.kv_b_proj.weight.view(self.heads, self.plain + self.value, self.rank)
        absorbed = (plain.transpose(0, 1) @ up[:, : self.plain]).transpose(0, 1)
        query = torch.cat((absorbed, self._turn(turned, turn)), dim=-1) * self.scale
        mixed = attend(query[:, None], keys, None, rows, self.rank)[:, 0]
        found = (mixed.transpose(0, 1) @ up[:, self.plain :].transpose(1, 2)).transpose(0, 1)
        return self.o_proj.step(found.reshape(count, -1), rows)

    def _turn(self, x: Tensor, turn: Turn) -> Tensor:
        # checkpoints keep neighbouring dimensions as pairs; any order serves, as long as queries and keys share it
        return rotate(torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1) if self.paired else x, *turn)
