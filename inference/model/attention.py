"""Attention in torch: grouped-query heads, and DeepSeek's latent heads, over the paged cache."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.model.config import ModelConfig
from inference.model.layers import Linear, RmsNorm, apply_rope
from inference.model.paged_attention import Geometry, Rows, attend
from inference.model.rope import latent_scale

LayerCache: TypeAlias = tuple[Tensor, Tensor | None]
"""Keys and values of a layer; latent attention keeps its values in the keys."""
Rope: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines of the rows' positions, each ``[rows, 1, rope_size]``."""


def geometry(config: ModelConfig, blocks: int, block_size: int) -> Geometry:
    """Sizes of the cache that a model's attention needs."""
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
        self.heads = config.num_attention_heads
        self.kv_heads = config.kv_heads
        self.head = config.head_size
        width = config.hidden_size
        self.q_proj = Linear(width, self.heads * self.head, bias=config.qkv_bias)
        self.k_proj = Linear(width, self.kv_heads * self.head, bias=config.qkv_bias)
        self.v_proj = Linear(width, self.kv_heads * self.head, bias=config.qkv_bias)
        self.o_proj = Linear(self.heads * self.head, width, bias=config.output_bias)
        normed = config.model_type == "qwen3"
        self.q_norm = RmsNorm(self.head, config.rms_norm_eps) if normed else nn.Identity()
        self.k_norm = RmsNorm(self.head, config.rms_norm_eps) if normed else nn.Identity()

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Causal attention within each row of ``[batch, time, width]``, for training; gives the same shape.

        ``cosine`` and ``sine``: ``[time, rope_size]``.
        """
        batch, time, _ = x.shape
        # [batch, heads, time, head]
        query = self.q_norm(self.q_proj(x).view(batch, time, self.heads, self.head)).transpose(1, 2)
        key = self.k_norm(self.k_proj(x).view(batch, time, self.kv_heads, self.head)).transpose(1, 2)
        value = self.v_proj(x).view(batch, time, self.kv_heads, self.head).transpose(1, 2)
        query = apply_rope(query, cosine, sine)
        key = apply_rope(key, cosine, sine)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return torch.as_tensor(self.o_proj(mixed.transpose(1, 2).reshape(batch, time, -1)))

    def step(self, x: Tensor, rows: Rows, layer: LayerCache, rope: Rope) -> Tensor:
        """Write ``[rows, width]`` into the cache and attend each row to its own request up to its own position.

        Gives ``[rows, width]``.
        """
        keys, values = layer
        assert values is not None
        count = len(x)
        # [rows, heads, head], and [rows, kv_heads, head] for keys and values
        query = self.q_norm(self.q_proj.step(x, rows).view(count, self.heads, self.head))
        key = self.k_norm(self.k_proj.step(x, rows).view(count, self.kv_heads, self.head))
        value = self.v_proj.step(x, rows).view(count, self.kv_heads, self.head)
        keys[:, rows.blocks, rows.offsets] = apply_rope(key, *rope).transpose(0, 1)
        values[:, rows.blocks, rows.offsets] = value.transpose(0, 1)
        # [rows, kv_heads, group, head]
        query = apply_rope(query, *rope).view(count, self.kv_heads, -1, self.head) * self.head**-0.5
        mixed = attend(query, keys, values, rows, self.head)
        return self.o_proj.step(mixed.view(count, -1), rows)


class LatentAttention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, Liu et al. 2024), its up-projections absorbed into query and output.

    The cache holds one latent c (``kv_a``) and one rotary key part k_R per position, shared by all heads: attention is
    that of a single key head whose values are the latent. With the up-projections W_UK and W_UV of a head, its score is
    ``(W_UK^T q_C) . c + q_R . k_R`` and its output ``W_UV`` times the mixed latents.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.kv_lora_rank is not None
        self.heads = config.num_attention_heads
        self.rank = config.kv_lora_rank
        self.plain = config.qk_nope_head_dim
        self.rotary = config.qk_rope_head_dim
        self.value = config.v_head_dim
        self.paired = config.rope_interleave or config.model_type == "deepseek_v2"
        self.scale = latent_scale(config)
        width, bias = config.hidden_size, config.attention_bias
        queries = self.heads * (self.plain + self.rotary)
        self.narrow = config.q_lora_rank is not None
        if config.q_lora_rank is None:
            self.q_proj = Linear(width, queries)
        else:
            self.q_a_proj = Linear(width, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = RmsNorm(config.q_lora_rank, 1e-6)
            self.q_b_proj = Linear(config.q_lora_rank, queries)
        self.kv_a_proj_with_mqa = Linear(width, self.rank + self.rotary, bias=bias)
        self.kv_a_layernorm = RmsNorm(self.rank, 1e-6)
        self.kv_b_proj = Linear(self.rank, self.heads * (self.plain + self.value))
        self.o_proj = Linear(self.heads * self.value, width, bias=bias)

    def step(self, x: Tensor, rows: Rows, layer: LayerCache, rope: Rope) -> Tensor:
        """As ``GroupedAttention.step``."""
        keys, count = layer[0], len(x)
        # q_C [rows, heads, plain] and q_R [rows, heads, rotary]
        plain, rotary = torch.split(self._queries(x, rows), [self.plain, self.rotary], dim=-1)
        # c [rows, rank] and k_R [rows, rotary]
        latent, shared = torch.split(self.kv_a_proj_with_mqa.step(x, rows), [self.rank, self.rotary], dim=-1)
        key = torch.cat((self.kv_a_layernorm(latent), self._apply_rope(shared[:, None], rope)[:, 0]), dim=-1)
        keys[0, rows.blocks, rows.offsets] = key
        # W_UK [heads, plain, rank] above W_UV [heads, value, rank]
        up = self.kv_b_proj.weight.view(self.heads, self.plain + self.value, self.rank)
        absorbed = (plain.transpose(0, 1) @ up[:, : self.plain]).transpose(0, 1)
        query = torch.cat((absorbed, self._apply_rope(rotary, rope)), dim=-1) * self.scale
        # [rows, heads, rank]
        mixed = attend(query[:, None], keys, None, rows, self.rank)[:, 0]
        # [rows, heads, value]
        outputs = (mixed.transpose(0, 1) @ up[:, self.plain :].transpose(1, 2)).transpose(0, 1)
        return self.o_proj.step(outputs.reshape(count, -1), rows)

    def _queries(self, x: Tensor, rows: Rows) -> Tensor:
        """``[rows, width]`` to ``[rows, heads, plain + rotary]``."""
        if self.narrow:
            queries = self.q_b_proj.step(self.q_a_layernorm(self.q_a_proj.step(x, rows)), rows)
        else:
            queries = self.q_proj.step(x, rows)
        return queries.view(len(x), self.heads, -1)

    def _apply_rope(self, x: Tensor, rope: Rope) -> Tensor:
        """Rotary positions for ``[rows, heads, rotary]``."""
        # checkpoints keep neighbouring dimensions as pairs; any order serves, as long as queries and keys share it
        halves = torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1) if self.paired else x
        return apply_rope(halves, *rope)
