"""Reads LoRA adapters (PEFT's folder format) into a model's projections."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from inference.model.config import MAX_CONFIG_BYTES
from inference.model.layers import Linear
from inference.model.transformer import LanguageModel

MAX_RANK = 256
MAX_BYTES = 1 << 30
_PREFIX = "base_model.model."


class AdapterConfig(msgspec.Struct, frozen=True):
    """The keys of ``adapter_config.json`` that count; an adapter that needs others is refused."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    modules_to_save: list[str] | None = None
    peft_type: str = "LORA"


def add_adapter(model: LanguageModel, name: tuple[str, str], folder: Path) -> bytes:
    """Load an adapter into the model's projections under ``name``, (tenant, name); gives the SHA-256 of its files.

    Raises ``ValueError`` where it does not fit the model, before anything is changed.
    """
    settings = _read(folder / "adapter_config.json", MAX_CONFIG_BYTES)
    weights = _read(folder / "adapter_model.safetensors", MAX_BYTES)
    try:
        config = msgspec.json.decode(settings, type=AdapterConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise ValueError(f"adapter_config.json: {fault}") from None
    if config.peft_type != "LORA" or config.use_dora or config.bias != "none" or config.modules_to_save:
        raise ValueError(
            "adapter_config.json: expected plain LoRA without biases, DoRA or saved modules, got another; train such"
        )
    if not 1 <= config.r <= MAX_RANK:
        raise ValueError(f"adapter_config.json: expected a rank of 1 to {MAX_RANK}, got {config.r}")
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    try:
        # parsed from the bytes that were hashed, not read again
        tensors = load_tensors(weights)
    except SafetensorError as fault:
        raise ValueError(f"adapter_model.safetensors: expected safetensors: {fault}") from None
    for linear, down, up in [_scaled(pair, scale) for pair in _pairs(model, tensors, config.r)]:
        linear.adapters[name] = (down, up)
    return hashlib.sha256(hashlib.sha256(settings).digest() + hashlib.sha256(weights).digest()).digest()


def _pairs(model: LanguageModel, tensors: dict[str, Tensor], rank: int) -> list[tuple[Linear, Tensor, Tensor]]:
    """Projections with their ``[rank, inputs]`` and ``[outputs, rank]``."""
    modules = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    # computed apart from the others: its weight is absorbed into attention, and the head is no part of a layer
    modules = {name: module for name, module in modules.items() if not name.endswith(("kv_b_proj", "lm_head"))}
    pairs = []
    for key in sorted(tensors):
        if not key.endswith(".lora_A.weight"):
            continue
        target = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        down, up = tensors[key], tensors.get(key.replace(".lora_A.", ".lora_B."))
        linear = modules.get(target)
        if linear is None or up is None:
            raise ValueError(f"adapter_model.safetensors: expected pairs for projections of this model, got {target}")
        if down.shape != (rank, linear.in_features) or up.shape != (linear.out_features, rank):
            raise ValueError(
                f"adapter_model.safetensors: expected shapes of {target}, got {tuple(down.shape)} and {tuple(up.shape)}"
            )
        pairs.append((linear, down, up))
    if not pairs or 2 * len(pairs) != len(tensors):
        raise ValueError(
            "adapter_model.safetensors: expected pairs of lora_A and lora_B alone, got none or others; export it again"
        )
    return pairs


def _scaled(pair: tuple[Linear, Tensor, Tensor], scale: float) -> tuple[Linear, Tensor, Tensor]:
    """A pair on the device and in the dtype of the weights it changes, ``up`` times the scale."""
    linear, down, up = pair
    weight = linear.weight
    down = down.to(weight.device, weight.dtype)
    up = (up.float() * scale).to(weight.device, weight.dtype)
    # a value may be a number as it was stored and none once it is scaled or narrowed
    if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
        raise ValueError(
            "adapter_model.safetensors: expected finite numbers, also times the scale, got others; export it again"
        )
    return linear, down, up


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"{path.name}: expected at most {most} bytes, got more")
    return raw
