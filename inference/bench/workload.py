"""Requests for the engines that are measured, and the models that they serve."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file

from inference.chat.tokenizer import ChatTokenizer
from inference.engines.torch import shipped_model
from inference.model.config import read_config
from inference.model.transformer import LanguageModel
from inference.types import GenerationRequest, SamplingParams, Turn

WORDS = (
    "dog",
    "water",
    "computer",
    "house",
    "music",
    "river",
    "city",
    "doctor",
    "letter",
    "winter",
    "bridge",
    "garden",
)
SHIPPED_END = 0
"""Id of the end marker in the shipped tokenizer."""
MILLION = 1_000_000


def questions(count: int, output: int, *, prompt: int = 0, seed: int = 0) -> list[GenerationRequest]:
    """Requests of four tenants.

    ``prompt`` 0 asks about single words, at a temperature that keeps most answers from ending early. Else prompts are
    16 to ``prompt`` words long and answers an eighth of ``output`` to all of it, greedy and of exactly that length,
    evenly spread and the same for the same ``seed``.
    """
    draw = np.random.default_rng(seed)
    requests = []
    for index in range(count):
        text, limit = f"What is a {WORDS[index % len(WORDS)]}?", output
        sampling = SamplingParams(temperature=3.0)
        if prompt:
            text = " ".join(draw.choice(WORDS, int(draw.integers(16, prompt + 1))))
            limit = int(draw.integers(max(1, output // 8), output + 1))
            sampling = SamplingParams(logit_bias=((SHIPPED_END, -100.0),))
        requests.append(
            GenerationRequest(
                request_id=f"bench-{index}",
                tenant=f"tenant-{index % 4}",
                turns=(Turn("user", text),),
                max_tokens=limit,
                sampling=sampling,
            )
        )
    return requests


@contextmanager
def random_model() -> Iterator[Path]:
    """A folder with a Llama of 56 million random parameters, output weights tied, and the shipped tokenizer."""
    shipped = shipped_model()
    config = msgspec.structs.replace(
        read_config(shipped / "config.json"),
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=1024,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "random"
        folder.mkdir()
        tensors = LanguageModel(config).state_dict()
        del tensors["lm_head.weight"]  # tied
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_bytes(msgspec.json.encode(_as_checkpoint(config)))
        shutil.copy(shipped / "tokenizer.json", folder)
        yield folder


def _as_checkpoint(config: msgspec.Struct) -> dict[str, object]:
    fields = {name: value for name, value in msgspec.structs.asdict(config).items() if value is not None}
    return fields | {"architectures": ["LlamaForCausalLM"]}


def parameters(folder: Path) -> float:
    """Millions of parameters, by the size of the weights' file and the bytes of each."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "numpy") as file:
        return sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()) / MILLION  # noqa: SIM118


def encoded(folder: Path, requests: list[GenerationRequest]) -> list[list[int]]:
    """The token ids that the engine makes of the requests."""
    chat = ChatTokenizer.load(folder / "tokenizer.json")
    return [chat.encode(request.turns) for request in requests]
