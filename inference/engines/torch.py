"""The engine that computes here: one model folder, on the CPU or on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.chat.tokenizer import load_tokenizer
from inference.model.forward import ModelForward, Vocabulary
from inference.model.forward_torch import CACHE_TOKENS, TorchForward
from inference.model.lora import add_adapter
from inference.model.transformer import LanguageModel, load_model

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_USUAL = {"cpu": "float32"}


@dataclass(frozen=True, slots=True)
class TorchOptions(BatchOptions):
    """Settings of the model and its device, beside those of the batch."""

    max_batch: int = 32
    """Requests that run together."""
    threads: int | None = None
    """Threads of torch, for the whole process; None leaves them as they are."""
    device: str = "cpu"
    """Torch's name of the device."""
    dtype: str | None = None
    """float32 or bfloat16; None: float32 on the CPU, bfloat16 elsewhere."""
    cache_tokens: int | None = None
    """Positions of the cache; None: ``CACHE_TOKENS``, on a CUDA device a share of the free memory."""
    adapters: Mapping[tuple[str, str], Path] = field(default_factory=dict)
    """Folders with a LoRA adapter by (tenant, name); the tenant alone may ask for it."""
    graphs: bool = True
    """True replays captured steps on a CUDA device."""


class TorchEngine(BatchingEngine):
    """Serves one model folder (``config.json``, ``model.safetensors``, ``tokenizer.json``).

    Raises ``ValueError`` or ``OSError`` for an unusable folder or device.
    """

    def __init__(self, model_dir: Path, options: TorchOptions | None = None) -> None:
        options = options or TorchOptions()
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        chat = load_tokenizer(model_dir)
        device = _usable(options.device)
        try:
            model = load_model(model_dir, _dtype(options, device)).to(device)
            digests = {key: add_adapter(model, key, folder) for key, folder in options.adapters.items()}
            self._model_forward = _make_forward(model, chat, options, digests)
        except torch.OutOfMemoryError:
            raise ValueError(
                f"device {options.device}: expected memory for the weights and a cache of one whole context, got less; "
                "take a larger device or a smaller model"
            ) from None
        super().__init__(self._model_forward, (model_dir.name,), options)

    def load_adapter(self, tenant: str, name: str, folder: Path) -> None:
        """Load one more adapter, which this tenant alone may ask for; blocks, and steps go on.

        Raises ``ValueError`` where it does not fit, ``OSError`` where it cannot be read.
        """
        self._model_forward.load_adapter((tenant, name), folder)


def _make_forward(
    model: LanguageModel, chat: Vocabulary, options: TorchOptions, adapters: Mapping[tuple[str, str], bytes]
) -> ModelForward:
    slots, cache_tokens = options.max_batch, options.cache_tokens
    if model.cosine.device.type != "cuda":
        return TorchForward(model, chat, slots, cache_tokens=cache_tokens or CACHE_TOKENS, adapters=adapters)
    # it imports Triton, which only such machines need
    from inference.model.forward_cuda import CudaForward

    return CudaForward(model, chat, slots, cache_tokens=cache_tokens, adapters=adapters, graphs=options.graphs)


def _dtype(options: TorchOptions, device: torch.device) -> torch.dtype:
    return _DTYPES[options.dtype or _USUAL.get(device.type, "bfloat16")]


def _usable(name: str) -> torch.device:
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        # the first line: what follows is advice for debugging kernels
        raise ValueError(f"device {name!r} is not usable here: {str(error).splitlines()[0]}") from None


def shipped_model() -> Path:
    """The folder of the model that ships with the package."""
    return Path(__file__).parents[1] / "shipped" / "glossary"
