"""Adapters of tenants: mixed in one batch, each as if merged into the weights; files that do not fit are refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inference.engines.torch import TorchEngine, TorchOptions, shipped_model
from inference.model.attention import geometry
from inference.model.config import ModelConfig
from inference.model.lora import add_adapter
from inference.model.paged_attention import PagedCache, make_rows
from inference.model.transformer import LanguageModel
from inference.ports import ScheduledTokens, StepInput
from inference.types import FinishReason
from tests.unit.inference.doubles import collect, request

CONFIG = ModelConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
RANK, ALPHA = 4, 8.0
TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_adapter(folder: Path, model: LanguageModel, seed: int, **changes: object) -> Path:
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(TARGETS):
            outputs, inputs = module.weight.shape
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn((RANK, inputs), generator=draw) * 0.3
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn((outputs, RANK), generator=draw) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"} | changes
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def tiny(seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(CONFIG).eval().requires_grad_(False)


def merged(folder: Path) -> LanguageModel:
    from safetensors.torch import load_file

    model, tensors = tiny(), load_file(folder / "adapter_model.safetensors")
    modules = dict(model.named_modules())
    for name in tensors:
        if ".lora_A." in name:
            linear = modules[name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")]
            linear.weight += tensors[name.replace(".lora_A.", ".lora_B.")] @ tensors[name] * (ALPHA / RANK)
    return model


@torch.inference_mode()
def logits(model: LanguageModel, *prompts: tuple[list[int], tuple[str, str] | None]) -> list[np.ndarray]:
    cache = PagedCache(geometry(CONFIG, 32, 16), torch.device("cpu"), torch.float32)
    inputs = [
        StepInput(ScheduledTokens(f"r{lane}", 0, len(tokens), True, (2 * lane, 2 * lane + 1)), tokens, adapter)
        for lane, (tokens, adapter) in enumerate(prompts)
    ]
    found = model.logits(model.step(make_rows(inputs, 0, cache, (8, 64)), cache)).numpy()
    ends = np.cumsum([len(tokens) for tokens, _ in prompts])
    return [found[end - 1] for end in ends]


def test_mixed_adapters_each_equal_their_merged_weights(tmp_path: Path) -> None:
    model, tokens = tiny(), list(range(5, 25))
    folders = [write_adapter(tmp_path / name, model, seed) for seed, name in enumerate("ab", 1)]
    names = [("t1", "a"), ("t2", "b")]
    digests = {add_adapter(model, name, folder) for name, folder in zip(names, folders, strict=True)}
    assert len(digests) == 2
    plain, first, second, again = logits(model, (tokens, None), (tokens, names[0]), (tokens, names[1]), (tokens, None))
    assert np.array_equal(plain, again)
    assert np.allclose(plain, logits(tiny(), (tokens, None))[0], atol=1e-5)
    for found, folder in zip((first, second), folders, strict=True):
        assert np.allclose(found, logits(merged(folder), (tokens, None))[0], atol=1e-4)
        assert not np.allclose(found, plain, atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"r": 0}, "rank"),
        ({"r": 5}, "shapes"),
        ({"use_dora": True}, "plain LoRA"),
        ({"peft_type": "IA3"}, "plain LoRA"),
    ],
)
def test_settings_that_do_not_fit_are_named_and_nothing_is_loaded(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=said):
        add_adapter(model, ("t", "a"), write_adapter(tmp_path / "a", model, 1, **changes))
    assert not any(getattr(module, "adapters", None) for module in model.modules())


@pytest.mark.parametrize("case", ["half", "unknown", "nan", "extra"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    from safetensors.torch import load_file

    model = tiny()
    folder = write_adapter(tmp_path / "a", model, 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    first = next(name for name in tensors if ".lora_A." in name)
    if case == "half":
        del tensors[first.replace("lora_A", "lora_B")]
    elif case == "unknown":
        tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = tensors[first].clone()
    elif case == "nan":
        tensors[first][0, 0] = torch.nan
    else:
        tensors["base_model.model.lm_head.weight"] = torch.zeros(1)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors"):
        add_adapter(model, ("t", "a"), folder)


def test_an_adapter_serves_its_tenant_only(tmp_path: Path) -> None:
    from inference.model.transformer import load_model

    folder = write_adapter(tmp_path / "a", load_model(shipped_model()), 1)
    engine = TorchEngine(shipped_model(), TorchOptions(max_batch=2, threads=1, adapters={("owner", "tuned"): folder}))

    async def run() -> None:
        asked = dataclasses.replace(request("r", "What is a dog?", tenant="owner", limit=8), adapter="tuned")
        plain, tuned, stolen = await asyncio.gather(
            *(
                collect(engine.submit(one))
                for one in (
                    request("plain", "What is a dog?", tenant="owner", limit=8),
                    asked,
                    dataclasses.replace(asked, request_id="s", tenant="thief"),
                )
            )
        )
        assert "".join(chunk.text for chunk in plain) != "".join(chunk.text for chunk in tuned)
        assert tuned[-1].finish in (FinishReason.STOP, FinishReason.LENGTH)
        assert [chunk.finish for chunk in stolen] == [FinishReason.ERROR]
        assert "none of that name" in str(stolen[0].error)
        await engine.close()

    asyncio.run(run())
