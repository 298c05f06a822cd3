"""A Llama-shaped language model in torch: ragged batched forward over a slot KV cache.

RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021, half-rotation layout), grouped
query attention (Ainslie et al. 2023), SwiGLU (Shazeer 2020), tied embeddings. Parameter names and
``config.json`` keys are those of Hugging Face Llama and Qwen2 checkpoints.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from inference.config import ModelConfig, read_config

KV_BLOCK = 64
"""Attention reads the cache in whole blocks: a row's work depends on its own position only."""


class KvCache:
    """Keys and values of ``slots`` requests: per layer ``[slots + 1, kv_heads, length, head]``.

    The last slot is scratch: padding rows write and read there, so they touch no request.
    Memory is reserved zeroed, hence committed by the system only as positions are written.
    """

    def __init__(self, config: ModelConfig, slots: int, device: torch.device) -> None:
        blocks = -(-config.max_position_embeddings // KV_BLOCK)
        shape = (slots + 1, config.num_key_value_heads, blocks * KV_BLOCK, config.head_size)
        self.scratch = slots
        self.keys = [torch.zeros(shape, device=device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, device=device) for _ in range(config.num_hidden_layers)]

    def clear(self, slot: int, length: int) -> None:
        """Zero the first ``length`` positions of a slot, so no tenant's state outlives it."""
        for tensor in (*self.keys, *self.values):
            tensor[slot, :, :length].zero_()


class Rows(msgspec.Struct, frozen=True):
    """One ragged batch: ``tokens``, ``slots``, ``positions`` are int64 ``[rows]`` tensors.

    ``groups`` lists (row indices or None for all, blocks of cache read).
    """

    tokens: Tensor
    slots: Tensor
    positions: Tensor
    groups: list[tuple[Tensor | None, int]]


def make_rows(tokens: list[int], slots: list[int], positions: list[int], device: torch.device) -> Rows:
    """Group rows by how many cache blocks their own position needs."""

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, device=device)

    by_blocks: dict[int, list[int]] = {}
    for index, position in enumerate(positions):
        by_blocks.setdefault(position // KV_BLOCK + 1, []).append(index)
    groups: list[tuple[Tensor | None, int]] = [
        (None if len(by_blocks) == 1 else tensor(rows), blocks) for blocks, rows in by_blocks.items()
    ]
    return Rows(tensor(tokens), tensor(slots), tensor(positions), groups)


class RmsNorm(nn.Module):
    """Root-mean-square norm over the last axis."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions to ``[..., head]`` with ``[..., head]`` cosines and sines."""
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-high, low), dim=-1) * sine


class Attention(nn.Module):
    """Grouped-query attention: packed (training) and over the slot cache (serving)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head = config.head_size
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, self.heads * self.head, bias=bias)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head, bias=bias)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head, bias=bias)
        self.o_proj = nn.Linear(self.heads * self.head, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Causal attention within each row of ``[batch, time, width]``."""
        batch, time, _ = x.shape
        query = self.q_proj(x).view(batch, time, self.heads, self.head).transpose(1, 2)
        key = self.k_proj(x).view(batch, time, self.kv_heads, self.head).transpose(1, 2)
        value = self.v_proj(x).view(batch, time, self.kv_heads, self.head).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            rotate(query, cosine, sine),
            rotate(key, cosine, sine),
            value,
            is_causal=True,
            enable_gqa=True,
        )
        return torch.as_tensor(self.o_proj(mixed.transpose(1, 2).reshape(batch, time, -1)))

    def step(self, x: Tensor, rows: Rows, keys: Tensor, values: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Attend ``[rows, width]`` each to its own slot up to its own position."""
        count = x.shape[0]
        cosine, sine = turn
        query = rotate(self.q_proj(x).view(count, self.heads, self.head), cosine, sine)
        key = rotate(self.k_proj(x).view(count, self.kv_heads, self.head), cosine, sine)
        keys[rows.slots, :, rows.positions] = key
        values[rows.slots, :, rows.positions] = self.v_proj(x).view(count, self.kv_heads, self.head)
        query = query.view(count, self.kv_heads, -1, self.head) * self.head**-0.5
        mixed = torch.empty_like(query)
        for chosen, blocks in rows.groups:
            pick = slice(None) if chosen is None else chosen
            length = blocks * KV_BLOCK
            slots = rows.slots[pick]
            scores = query[pick] @ keys[slots, :, :length].transpose(-1, -2)
            future = torch.arange(length, device=keys.device) > rows.positions[pick][:, None]
            weights = scores.masked_fill(future[:, None, None], -torch.inf).softmax(-1)
            mixed[pick] = weights @ values[slots, :, :length]
        return torch.as_tensor(self.o_proj(mixed.view(count, -1)))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x)))


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)


class Backbone(nn.Module):
    """Embeddings, layers and the last norm; named as in the checkpoints (``model.*``)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


class LanguageModel(nn.Module):
    """The whole model. ``forward`` trains; ``step`` serves."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        half = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        angles = torch.outer(
            torch.arange(config.max_position_embeddings, dtype=torch.float64),
            config.rope_theta**-half,
        ).repeat(1, 2)
        self.register_buffer("cosine", angles.cos().float(), persistent=False)
        self.register_buffer("sine", angles.sin().float(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states ``[batch, time, width]`` of ``[batch, time]`` token ids."""
        time = tokens.shape[1]
        cosine, sine = self.cosine[:time], self.sine[:time]
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            assert isinstance(layer, Block)
            x = x + layer.self_attn(layer.input_layernorm(x), cosine, sine)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return torch.as_tensor(self.model.norm(x))

    def step(self, rows: Rows, cache: KvCache) -> Tensor:
        """Write the rows into the cache and return their hidden states ``[rows, width]``."""
        turn = (self.cosine[rows.positions][:, None], self.sine[rows.positions][:, None])
        x = self.model.embed_tokens(rows.tokens)
        for index, layer in enumerate(self.model.layers):
            assert isinstance(layer, Block)
            normed = layer.input_layernorm(x)
            x = x + layer.self_attn.step(normed, rows, cache.keys[index], cache.values[index], turn)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return torch.as_tensor(self.model.norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[rows, vocab]`` of hidden states."""
        return torch.as_tensor(self.lm_head(hidden))


def load_model(folder: Path) -> LanguageModel:
    """Read ``config.json`` and ``model.safetensors`` into an fp32 model in evaluation mode.

    Raises ``ValueError`` when a tensor is missing, unknown or of another shape.
    """
    config = read_config(folder / "config.json")
    model = LanguageModel(config)
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    if config.tie_word_embeddings:
        tensors.setdefault("lm_head.weight", tensors.get("model.embed_tokens.weight", torch.empty(0)))
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as fault:
        raise ValueError(f"model.safetensors does not fit config.json: {fault}") from None
    return model.eval().requires_grad_(False)
