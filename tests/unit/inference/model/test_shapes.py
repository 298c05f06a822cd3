"""Logits equal those of ``transformers`` on random weights of each shape: whole, in chunks, and among others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.model.attention import geometry
from inference.model.config import decode_config
from inference.model.paged_attention import PagedCache, make_rows
from inference.model.transformer import LanguageModel, load_model
from inference.ports import ScheduledTokens, StepInput

transformers = pytest.importorskip("transformers", reason="the reference implementation is an extra of the tests")

SMALL = {
    "vocab_size": 211,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
LATENT = SMALL | {
    "num_key_value_heads": 6,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SMALL),
    "llama, biases, tied, 4 heads alike": (
        "Llama",
        SMALL | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "num_key_value_heads": 6},
    ),
    "llama, linear": ("Llama", SMALL | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "llama, llama3": ("Llama", SMALL | {"rope_scaling": LLAMA3, "rope_theta": 500000.0}),
    "qwen2": ("Qwen2", SMALL | {"tie_word_embeddings": True}),
    "qwen2, yarn": ("Qwen2", SMALL | {"rope_scaling": {k: v for k, v in YARN.items() if "mscale" not in k}}),
    "qwen3": ("Qwen3", SMALL | {"head_dim": 16}),
    "deepseek v2, greedy": ("DeepseekV2", LATENT | {"topk_method": "greedy", "q_lora_rank": None}),
    "deepseek v2, in groups": ("DeepseekV2", LATENT | {"topk_method": "group_limited_greedy", "rope_scaling": YARN}),
    "deepseek v3": ("DeepseekV3", LATENT | {"norm_topk_prob": True, "routed_scaling_factor": 2.5}),
    "deepseek v3, yarn, halves": ("DeepseekV3", LATENT | {"rope_scaling": YARN, "rope_interleave": False}),
}
TILES = (8, 64, 512)
LENGTH = 90
CLOSE = 2e-4
"""Logits are of the order of ten; sums in another order differ by less than this."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def reference_of(name: str, folder: Path) -> Any:
    """The reference's model of a shape, random weights; also written to ``folder``."""
    family, fields = SHAPES[name]
    torch.manual_seed(7)
    reference = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**fields))
    with torch.no_grad():
        for part, tensor in [*reference.named_parameters(), *reference.named_buffers()]:
            if "bias" in part or "norm" in part:
                # biases start at zero and norms at one: a model that ignored them would agree
                tensor.add_(torch.randn(tensor.shape) * 0.1)
    reference.eval().save_pretrained(folder)
    return reference


@pytest.fixture(params=SHAPES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LanguageModel, Any]:
    """Our model, read from the folder that the reference wrote, and the reference."""
    reference = reference_of(request.param, tmp_path)
    return load_model(tmp_path), reference


def feed(lane: int, start: int, tokens: list[int]) -> StepInput:
    blocks = tuple(8 * lane + index * 3 % 8 for index in range((start + len(tokens) - 1) // 16 + 1))
    return StepInput(ScheduledTokens(f"r{lane}", start, len(tokens), True, blocks), tokens)


@torch.inference_mode()
def logits(model: LanguageModel, cache: PagedCache, *inputs: StepInput) -> np.ndarray:
    found: np.ndarray = model.logits(model.step(make_rows(inputs, 3, cache, TILES), cache))[:-3].numpy()
    return found


def test_logits_equal_the_reference(pair: tuple[LanguageModel, Any]) -> None:
    model, reference = pair
    cache = PagedCache(geometry(model.config, 32, 16), torch.device("cpu"), torch.float32)
    draw = np.random.default_rng(3)
    first, second = draw.integers(0, 211, LENGTH).tolist(), draw.integers(0, 211, 40).tolist()
    with torch.no_grad():
        wanted, other = (reference(torch.tensor([ids])).logits[0].numpy() for ids in (first, second))
    assert np.abs(logits(model, cache, feed(0, 0, first)) - wanted).max() < CLOSE
    pieces = [feed(1, start, first[start:end]) for start, end in [(0, 5), (5, 6), (6, 70), (70, LENGTH)]]
    chunked = np.concatenate([logits(model, cache, piece) for piece in pieces])
    assert np.abs(chunked - wanted).max() < CLOSE
    # one reads its prompt while the other writes token by token
    logits(model, cache, feed(2, 0, first[:80]))
    for step in range(10):
        now = slice(step * 4, step * 4 + 4)
        mixed = logits(model, cache, feed(3, now.start, second[now]), feed(2, 80 + step, [first[80 + step]]))
        assert np.abs(mixed[-1] - wanted[80 + step]).max() < CLOSE
        assert np.abs(mixed[:4] - other[now]).max() < CLOSE


def test_a_latent_cache_holds_one_narrow_row_for_all_heads() -> None:
    raw = transformers.DeepseekV3Config(**LATENT).to_json_string().encode()
    shape = geometry(decode_config(raw), 4, 16)
    assert (shape.kv_heads, shape.key, shape.value) == (1, 16 + 8, 0)
