"""The step of a grouped-attention model on a CUDA device, in few kernels: projections joined, the rest in Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.model import triton_kernels
from inference.model.attention import GroupedAttention
from inference.model.layers import Mlp, RmsNorm
from inference.model.paged_attention import PagedCache
from inference.model.rope import tables
from inference.model.transformer import LanguageModel, TransformerLayer


@dataclass(frozen=True, slots=True)
class Where:
    """Where the rows of a pass stand, int32 on the device.

    ``tables``: ``[blocks, requests]``; ``positions`` and ``owners`` (a column of ``tables``): ``[rows]``. ``singles``
    and ``chunks``: first rows and numbers of rows of the tiles that attend together, None where there is none. Singles
    are one row each and come first.
    """

    tokens: Tensor
    positions: Tensor
    owners: Tensor
    tables: Tensor
    singles: tuple[Tensor, Tensor] | None
    chunks: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, slots=True)
class _Layer:
    first: RmsNorm
    joined: nn.Linear
    gains: tuple[Tensor, Tensor] | None
    output: nn.Linear
    second: RmsNorm
    gates: nn.Linear
    down: nn.Linear


class FusedDecoder:
    """Serves ``model`` from ``cache``. The model's projections become views of the joined ones: no weight twice."""

    def __init__(self, model: LanguageModel, cache: PagedCache) -> None:
        self._model, self._cache = model, cache
        config, device = model.config, model.cosine.device
        self._epsilon, self._size = config.rms_norm_eps, config.head_size
        self.group = config.num_attention_heads // config.kv_heads
        self._kv_heads = config.kv_heads
        half = config.rope_size // 2
        cosine, sine = (torch.from_numpy(turn[:, :half].copy()).to(device) for turn in tables(config))
        self._turns = (cosine, sine)
        self._layers = [_fuse(cast("TransformerLayer", layer)) for layer in model.model.layers]
        cores = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
        self._programs = 2 * cores

    def tokens_in_tile(self) -> int:
        """Neighbouring rows of a prompt that attend together."""
        return max(1, self._lines(triton_kernels.WIDE) // self.group)

    def hidden(self, where: Where) -> Tensor:
        """Write the rows into the cache; their hidden states ``[rows, width]``."""
        x = functional.embedding(where.tokens, self._model.model.embed_tokens.weight)
        delta = None
        for index, layer in enumerate(self._layers):
            normed = triton_kernels.add_norm(x, delta, layer.first.weight, self._epsilon)
            mixed = self._attention(index, layer, layer.joined(normed), where)
            delta = layer.output(mixed)
            normed = triton_kernels.add_norm(x, delta, layer.second.weight, self._epsilon)
            delta = layer.down(triton_kernels.gated(layer.gates(normed)))
        return torch.as_tensor(triton_kernels.add_norm(x, delta, self._model.model.norm.weight, self._epsilon))

    def _attention(self, index: int, layer: _Layer, joined: Tensor, where: Where) -> Tensor:
        keys, values = self._cache.layer(index)
        assert values is not None
        spots = (where.tables, where.positions, where.owners)
        shaped = joined.view(len(joined), -1, self._size)
        query = triton_kernels.turn_and_write(shaped, keys, values, spots, self._turns, layer.gains, self._epsilon)
        mixed = torch.empty_like(query)
        if where.singles is not None:
            lines, splits = self._lines(triton_kernels.NARROW), self._splits(len(where.singles[0]))
            triton_kernels.attend(query, keys, values, mixed, spots, where.singles, lines, splits)
        if where.chunks is not None:
            triton_kernels.attend(query, keys, values, mixed, spots, where.chunks, self._lines(triton_kernels.WIDE), 1)
        return mixed.view(len(joined), -1)

    def _lines(self, least: int) -> int:
        return max(least, 1 << (self.group - 1).bit_length())

    def _splits(self, singles: int) -> int:
        """Programs for the positions of one row and head: enough to fill the device, a power of two."""
        wanted = -(-self._programs // (singles * self._kv_heads))
        return min(32, 1 << (wanted - 1).bit_length())


def _fuse(block: TransformerLayer) -> _Layer:
    attention, mlp = cast("GroupedAttention", block.self_attn), cast("Mlp", block.mlp)
    gains = None
    if isinstance(attention.q_norm, RmsNorm) and isinstance(attention.k_norm, RmsNorm):
        gains = (attention.q_norm.weight, attention.k_norm.weight)
    return _Layer(
        first=block.input_layernorm,
        joined=_join([attention.q_proj, attention.k_proj, attention.v_proj]),
        gains=gains,
        output=attention.o_proj,
        second=block.post_attention_layernorm,
        gates=_join([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj,
    )


def _join(parts: Sequence[nn.Linear]) -> nn.Linear:
    """One projection for several of the same input; theirs become views of its weights."""
    with torch.device("meta"):
        joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), bias=False)
    joined.weight = _joined([part.weight for part in parts])
    if parts[0].bias is not None:
        joined.bias = _joined([part.bias for part in parts])
    begin = 0
    for part in parts:
        end = begin + part.out_features
        part.weight = nn.Parameter(joined.weight[begin:end], requires_grad=False)
        if part.bias is not None:
            part.bias = nn.Parameter(joined.bias[begin:end], requires_grad=False)
        begin = end
    return joined


def _joined(tensors: Sequence[Tensor]) -> nn.Parameter:
    first, rows = tensors[0], sum(len(tensor) for tensor in tensors)
    # another decoder of the same model has joined them before
    places = [tensor.data_ptr() - first.data_ptr() for tensor in tensors]
    sizes = [tensor.nbytes for tensor in tensors]
    if places == [sum(sizes[:index]) for index in range(len(sizes))] and first.untyped_storage().nbytes() == sum(sizes):
        return nn.Parameter(torch.as_strided(first, (rows, *first.shape[1:]), first.stride()), requires_grad=False)
    return nn.Parameter(torch.cat(list(tensors)), requires_grad=False)
