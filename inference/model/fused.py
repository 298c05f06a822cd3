"""The step of a grouped-attention model on a CUDA device, in few kernels: projections joined, the rest in Triton."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.model import triton_kernels as kernels
from inference.model.attention import GroupedAttention
from inference.model.layers import Mlp, RmsNorm
from inference.model.paged_attention import PagedCache
from inference.model.rope import rope_tables
from inference.model.transformer import LanguageModel, TransformerLayer


@dataclass(frozen=True, slots=True)
class PassInputs:
    """The rows of one pass, int32 on the device.

    ``tables``: ``[blocks, requests]``. ``tokens``, ``positions`` and ``owners`` (a column of ``tables``): ``[rows]``.
    ``singles`` and ``chunks``: first rows and numbers of rows of the tiles that attend together, each ``[tiles]``, None
    where there is no tile. Singles are one row each and come first.
    """

    tokens: Tensor
    positions: Tensor
    owners: Tensor
    tables: Tensor
    singles: tuple[Tensor, Tensor] | None
    chunks: tuple[Tensor, Tensor] | None

    @property
    def places(self) -> kernels.RowPlaces:
        return self.tables, self.positions, self.owners


@dataclass(frozen=True, slots=True)
class _FusedLayer:
    """One layer; ``gains`` are the weights of the norms of query and key heads, where the model has them."""

    attention_norm: RmsNorm
    qkv: nn.Linear
    gains: tuple[Tensor, Tensor] | None
    output: nn.Linear
    mlp_norm: RmsNorm
    gate_up: nn.Linear
    down: nn.Linear


class FusedDecoder:
    """Serves ``model`` from ``cache``. The model's projections become views of the joined ones: no weight twice."""

    def __init__(self, model: LanguageModel, cache: PagedCache) -> None:
        self._model = model
        self._cache = cache
        config, device = model.config, model.cosine.device
        self._epsilon = config.rms_norm_eps
        self._size = config.head_size
        self._kv_heads = config.kv_heads
        self.group = config.num_attention_heads // config.kv_heads
        half = config.rope_size // 2
        # float32 [context, rope_size / 2]: the second half of a table repeats the first
        cosine, sine = (torch.from_numpy(table[:, :half].copy()).to(device) for table in rope_tables(config))
        self._rope = (cosine, sine)
        self._layers = [_fuse(cast("TransformerLayer", layer)) for layer in model.model.layers]
        cores = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
        self._programs = 2 * cores

    def tokens_in_tile(self) -> int:
        """Neighbouring rows of a prompt that attend together."""
        return max(1, self._lines(kernels.WIDE) // self.group)

    def hidden(self, inputs: PassInputs) -> Tensor:
        """Write the rows into the cache; their hidden states ``[rows, width]``."""
        x = functional.embedding(inputs.tokens, self._model.model.embed_tokens.weight)
        delta = None
        for index, layer in enumerate(self._layers):
            normed = kernels.add_norm(x, delta, layer.attention_norm.weight, self._epsilon)
            mixed = self._attention(index, layer, layer.qkv(normed), inputs)
            delta = layer.output(mixed)
            normed = kernels.add_norm(x, delta, layer.mlp_norm.weight, self._epsilon)
            delta = layer.down(kernels.gated(layer.gate_up(normed)))
        return torch.as_tensor(kernels.add_norm(x, delta, self._model.model.norm.weight, self._epsilon))

    def _attention(self, index: int, layer: _FusedLayer, qkv: Tensor, inputs: PassInputs) -> Tensor:
        """``[rows, (heads + 2 * kv_heads) * size]`` to ``[rows, heads * size]``."""
        keys, values = self._cache.layer(index)
        assert values is not None
        by_head = qkv.view(len(qkv), -1, self._size)
        query = kernels.rope_and_write(by_head, keys, values, inputs.places, self._rope, layer.gains, self._epsilon)
        mixed = torch.empty_like(query)
        if inputs.singles is not None:
            lines, splits = self._lines(kernels.NARROW), self._splits(len(inputs.singles[0]))
            kernels.attend(query, keys, values, mixed, inputs.places, inputs.singles, lines, splits)
        if inputs.chunks is not None:
            lines = self._lines(kernels.WIDE)
            kernels.attend(query, keys, values, mixed, inputs.places, inputs.chunks, lines, 1)
        return mixed.view(len(qkv), -1)

    def _lines(self, least: int) -> int:
        """Query rows of one program: at least the heads of a group, a power of two."""
        return max(least, 1 << (self.group - 1).bit_length())

    def _splits(self, singles: int) -> int:
        """Programs for the positions of one row and head: enough to fill the device, a power of two."""
        wanted = -(-self._programs // (singles * self._kv_heads))
        return min(32, 1 << (wanted - 1).bit_length())


def _fuse(block: TransformerLayer) -> _FusedLayer:
    attention, mlp = cast("GroupedAttention", block.self_attn), cast("Mlp", block.mlp)
    gains = None
    if isinstance(attention.q_norm, RmsNorm) and isinstance(attention.k_norm, RmsNorm):
        gains = (attention.q_norm.weight, attention.k_norm.weight)
    return _FusedLayer(
        attention_norm=block.input_layernorm,
        qkv=_join([attention.q_proj, attention.k_proj, attention.v_proj]),
        gains=gains,
        output=attention.o_proj,
        mlp_norm=block.post_attention_layernorm,
        gate_up=_join([mlp.gate_proj, mlp.up_proj]),
        down=mlp.down_proj,
    )


def _join(parts: Sequence[nn.Linear]) -> nn.Linear:
    """One projection for several of the same input; theirs become views of its weights ``[outputs, inputs]``."""
    with torch.device("meta"):
        joined = nn.Linear(parts[0].in_features, sum(part.out_features for part in parts), bias=False)
    joined.weight = _concatenated([part.weight for part in parts])
    if parts[0].bias is not None:
        joined.bias = _concatenated([part.bias for part in parts])
    begin = 0
    for part in parts:
        end = begin + part.out_features
        part.weight = nn.Parameter(joined.weight[begin:end], requires_grad=False)
        if part.bias is not None:
            part.bias = nn.Parameter(joined.bias[begin:end], requires_grad=False)
        begin = end
    return joined


def _concatenated(tensors: Sequence[Tensor]) -> nn.Parameter:
    """The tensors as one along their first axis, without a copy where they lie in a row already."""
    first, rows = tensors[0], sum(len(tensor) for tensor in tensors)
    if _are_neighbours(tensors):
        # another decoder of the same model has joined them before
        return nn.Parameter(torch.as_strided(first, (rows, *first.shape[1:]), first.stride()), requires_grad=False)
    return nn.Parameter(torch.cat(list(tensors)), requires_grad=False)


def _are_neighbours(tensors: Sequence[Tensor]) -> bool:
    """True where the tensors fill one storage, each right behind the one before."""
    first = tensors[0]
    starts = [tensor.data_ptr() - first.data_ptr() for tensor in tensors]
    sizes = [tensor.nbytes for tensor in tensors]
    follow = starts == [sum(sizes[:index]) for index in range(len(sizes))]
    return follow and first.untyped_storage().nbytes() == sum(sizes)
