"""Language models in torch: pre-norm decoders of the Llama, Qwen2, Qwen3 and DeepSeek-V2/V3 shapes.

Parameter names and ``config.json`` keys are those of the Hugging Face checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.model.attention import GroupedAttention, LatentAttention
from inference.model.config import ModelConfig, read_config
from inference.model.layers import Linear, MixtureOfExperts, Mlp, RmsNorm
from inference.model.paged_attention import PagedCache, Rows
from inference.model.rope import rope_tables

MAX_INDEX_BYTES = 1 << 26


class TransformerLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = LatentAttention(config) if config.latent else GroupedAttention(config)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = (
            MixtureOfExperts(config)
            if config.routed(index)
            else Mlp(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        )


class Backbone(nn.Module):
    """Embeddings, layers and the last norm; named as in the checkpoints (``model.*``)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape = (config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding(*shape, _weight=_initial(*shape))
        self.layers = nn.ModuleList(TransformerLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)


def _initial(*shape: int) -> Tensor:
    """Embeddings before training.

    On the meta device nothing is drawn: torch would import its compiler for it, seconds of a worker's start.
    """
    weights = torch.empty(*shape)
    return weights if weights.is_meta else nn.init.normal_(weights)


class LanguageModel(nn.Module):
    """The whole model. ``forward`` trains; ``step`` serves."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        cosine, sine = rope_tables(config)
        self.register_buffer("cosine", torch.from_numpy(cosine), persistent=False)
        self.register_buffer("sine", torch.from_numpy(sine), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Hidden states ``[batch, time, width]`` of ``[batch, time]`` token ids; grouped attention only."""
        time = tokens.shape[1]
        cosine, sine = self.cosine[:time], self.sine[:time]
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            assert isinstance(layer, TransformerLayer)
            x = x + layer.self_attn(layer.input_layernorm(x), cosine, sine)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return torch.as_tensor(self.model.norm(x))

    def step(self, rows: Rows, cache: PagedCache) -> Tensor:
        """Write the rows into the cache; their hidden states ``[rows, width]``."""
        rope = (self.cosine[rows.positions][:, None], self.sine[rows.positions][:, None])
        x = self.model.embed_tokens(rows.tokens)
        for index, layer in enumerate(self.model.layers):
            assert isinstance(layer, TransformerLayer)
            x = x + layer.self_attn.step(layer.input_layernorm(x), rows, cache.layer(index), rope)
            x = x + layer.mlp.step(layer.post_attention_layernorm(x), rows)
        return torch.as_tensor(self.model.norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[rows, vocab]`` of hidden states ``[rows, width]``."""
        return torch.as_tensor(self.lm_head(hidden))


def build_model(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> LanguageModel:
    """A model in evaluation mode; ``ValueError`` when a weight is missing, unknown, misshapen or no number."""
    with torch.device("meta"):
        model = LanguageModel(config)
    cosine, sine = rope_tables(config)
    model.cosine, model.sine = torch.from_numpy(cosine).to(dtype), torch.from_numpy(sine).to(dtype)
    named = {name: _usable(name, tensor, dtype) for name, tensor in tensors.items() if _wanted(name, config)}
    if config.tie_word_embeddings:
        named["lm_head.weight"] = named.get("model.embed_tokens.weight", torch.empty(0))
    try:
        model.load_state_dict(named, strict=True, assign=True)
    except RuntimeError as fault:
        reason = " ".join(str(fault).split())[:1000]
        raise ValueError(f"model.safetensors does not fit config.json: {reason}") from None
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval().requires_grad_(False)


def _usable(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in ``dtype``. With one that is no number every answer fails, and its caller would be quarantined."""
    weight = tensor.to(dtype) if tensor.is_floating_point() else None
    # the extremes are finite where all between them are, and NaN where one is: a fifth of a second for a GiB
    if weight is None or (weight.numel() and not torch.isfinite(torch.stack(torch.aminmax(weight))).all()):
        raise ValueError(f"{name[:200]}: expected finite floating point numbers, got others; export the weights again")
    return weight


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Read ``config.json`` and ``model.safetensors``, or the shards that its index names.

    Raises ``ValueError`` when a file or tensor is missing, unknown or of another shape.
    """
    config = read_config(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    for path in _shards(folder):
        try:
            tensors.update(load_file(path))
        except SafetensorError as fault:
            # the library raises no ValueError, by which a caller knows that a model is refused
            raise ValueError(f"{path.name}: expected safetensors: {fault}; export the weights again") from None
    return build_model(config, tensors, dtype)


def _shards(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        return [whole]
    with index.open("rb") as file:
        raw = file.read(MAX_INDEX_BYTES)
    try:
        names = set(msgspec.json.decode(raw, type=_Index).weight_map.values())
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ValueError(f"{index.name}: {fault}") from None
    for name in names:
        # a name with a path in it could lead out of the folder that was checked
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index.name}: expected names of safetensors files in the same folder, got {name[:128]!r}"
            )
        if not (folder / name).is_file():
            raise ValueError(f"{index.name}: expected the shard {name}, got no such file; fetch it again")
    return [folder / name for name in sorted(names)]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _wanted(name: str, config: ModelConfig) -> bool:
    """True for a tensor that serving needs: old checkpoints carry frequencies, DeepSeek's a layer for training."""
    extra = f"model.layers.{config.num_hidden_layers}."
    return not (name.endswith("rotary_emb.inv_freq") or name.startswith(extra))
