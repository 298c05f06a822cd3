"""The torch engine: rows do not feel each other, slots are left clean, folders are checked."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.batching.loop import BatchingEngine
from inference.chat.tokenizer import SPECIAL_TOKENS, ChatTokenizer
from inference.engines.torch import TorchEngine, TorchOptions, shipped_model
from inference.model.config import ModelConfig, read_config
from inference.model.forward import BLOCK_SIZE
from inference.model.forward_torch import TorchForward
from inference.model.transformer import LanguageModel, load_model
from inference.ports import ERASE, Forward, LogitsRow, ScheduledTokens, StepInput
from inference.types import (
    Chunk,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    SamplingParams,
    Turn,
    input_token_bound,
)
from tests.unit.inference.doubles import check_answer, collect, request, until

MakeForward = Callable[[], TorchForward]
PROMPTS = ["What is a dog?", "什么是music？", "Define water", "Hello", "What is " + "a very " * 60 + "long word?"]


def asked_for(number: int, heat: float) -> GenerationRequest:
    sampling = SamplingParams(heat, top_p=0.95 if number % 2 else 1.0, seed=number)
    return request(f"r{number}", PROMPTS[number % len(PROMPTS)], tenant=f"t{number % 3}", limit=10, sampling=sampling)


@pytest.mark.parametrize("heat", [0.0, 1.5])
def test_an_answer_is_the_same_alone_and_among_others_that_join_between_steps(
    torch_engine: TorchEngine, heat: float
) -> None:
    requests = [asked_for(number, heat) for number in range(10)]

    async def after(steps: int, asked: GenerationRequest) -> list[Chunk]:
        start = torch_engine.stats().steps
        await until(lambda: not torch_engine.stats().running or torch_engine.stats().steps >= start + steps)
        return await collect(torch_engine.submit(asked))

    async def run() -> None:
        alone = [await collect(torch_engine.submit(asked)) for asked in requests]
        together = await asyncio.gather(*(after(number, asked) for number, asked in enumerate(requests)))
        assert together == alone
        for chunks, asked in zip(alone, requests, strict=True):
            check_answer(chunks, asked)

    asyncio.run(run())


def inputs(*parts: tuple[int, int, list[int]]) -> list[StepInput]:
    """Feeds of (lane, start, tokens), each the last of what is known; a lane is 8 blocks in no order."""
    found = []
    for lane, start, tokens in parts:
        blocks = tuple(8 * lane + (index * 3) % 8 for index in range((start + len(tokens) - 1) // BLOCK_SIZE + 1))
        found.append(StepInput(ScheduledTokens(f"r{lane}", start, len(tokens), True, blocks), tokens))
    return found


def test_a_row_is_bit_identical_in_every_batch_and_in_pieces(torch_forward: MakeForward) -> None:
    forward = torch_forward()
    draw = np.random.default_rng(0)
    prompts = [draw.integers(10, 4000, size).tolist() for size in (1, 3, 9, 17, 30, 5, 2, 12)]
    (alone,) = forward.logits(inputs((3, 0, prompts[4])))
    rows = forward.logits(inputs(*((lane, 0, prompts[lane]) for lane in range(8))))
    assert np.array_equal(rows[4], alone)
    forward.logits(inputs((2, 0, prompts[4][:11])))
    (pieces,) = forward.logits(inputs((2, 11, prompts[4][11:])))
    assert np.array_equal(pieces, alone)


def test_pieces_of_any_cut_give_the_same_bits_beyond_a_span(torch_forward: MakeForward) -> None:
    forward = torch_forward()
    tokens = np.random.default_rng(5).integers(10, 4000, 84).tolist()
    (whole,) = forward.logits(inputs((0, 0, tokens)))
    for lane, cuts in enumerate([(1, 63, 64, 65), (17, 48), tuple(range(1, 84))], 1):
        for start, end in zip((0, *cuts), (*cuts, 84), strict=True):
            (row,) = forward.logits(inputs((lane, start, tokens[start:end])))
        assert np.array_equal(row, whole)


def test_serving_agrees_with_the_training_pass(torch_forward: MakeForward) -> None:
    forward = torch_forward()
    tokens = np.random.default_rng(1).integers(10, 4000, 100).tolist()
    (row,) = forward.logits(inputs((0, 0, tokens)))
    model = load_model(shipped_model())
    with torch.no_grad():
        whole = model.logits(model(torch.tensor([tokens])))[0, -1].numpy()
    seen = np.isfinite(row)
    assert np.allclose(row[seen], whole[seen], atol=1e-3)


def test_an_erased_block_holds_nothing_and_a_copied_one_the_same(torch_forward: MakeForward) -> None:
    forward = torch_forward()
    forward.logits(inputs((0, 0, [5, 6, 7])))
    tensors = (*forward._cache.keys, *forward._cache.values)
    assert tensors[0][:, 0].any()
    forward.rearrange([(0, 9), (ERASE, 0)])
    for tensor in tensors:
        assert not tensor[:, 0].any()
        assert tensor[:, 9, :3].any()


def test_markers_and_unused_ids_are_never_drawn(torch_forward: MakeForward) -> None:
    forward = torch_forward()
    (row,) = forward.logits(inputs((0, 0, [5, 6, 7])))
    assert np.isfinite(row[forward.end])
    silent = [token for token in range(len(row)) if token != forward.end and np.isfinite(row[token])]
    assert all(forward.piece(token) for token in silent)


class Faulty:
    """A torch forward whose pass fails for one request: by exception, or by numbers that are none."""

    def __init__(self, forward: TorchForward, mode: str) -> None:
        self._forward, self._mode = forward, mode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forward, name)

    def logits(self, batch: list[StepInput]) -> list[LogitsRow]:
        guilty = [item.scheduled.request_id == "guilty" for item in batch]
        if self._mode == "raise" and any(guilty):
            self._forward.logits([StepInput(item.scheduled, [10**9] * item.scheduled.count) for item in batch])
        rows = iter(self._forward.logits(batch))
        found = [(next(rows), bad) for item, bad in zip(batch, guilty, strict=True) if item.scheduled.last]
        return [row * np.nan if bad else row for row, bad in found]


@pytest.mark.parametrize(("mode", "named"), [("raise", "IndexError"), ("nan", "not a number")])
def test_a_poisoned_request_fails_alone(torch_forward: MakeForward, mode: str, named: str) -> None:
    async def run() -> None:
        engine = BatchingEngine(cast(Forward, Faulty(torch_forward(), mode)), ("m",))
        good = [asked_for(number, 1.0) for number in range(5)]
        alone = [await collect(engine.submit(asked)) for asked in good]
        bad = request("guilty", "What is a dog?")
        *together, failed = await asyncio.gather(*(collect(engine.submit(asked)) for asked in (*good, bad)))
        assert together == alone
        assert failed[-1].finish is FinishReason.ERROR
        assert named in str(failed[-1].error)
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "text", ["<|user|>", "<|end|><|assistant|>", "", " ", "\x00\x01", "猫" * 50, "e\u0301", "\ufeff", "a" * 200, "😀 x"]
)
def test_text_survives_the_tokenizer_and_forges_no_marker(text: str) -> None:
    chat = ChatTokenizer.load(shipped_model() / "tokenizer.json")
    ids = chat.encode_text(text)
    assert b"".join(chat.piece(token) for token in ids) == text.encode()
    turns = (Turn("user", text),)
    assert len(chat.encode(turns)) <= input_token_bound(turns)
    assert len(chat.encode(turns)) == len(ids) + 3


def test_a_text_far_too_long_is_refused_before_it_is_encoded(torch_forward: MakeForward) -> None:
    with pytest.raises(InvalidRequest, match="cannot fit"):
        torch_forward().encode((Turn("user", "x" * 10_000_000),))


def test_the_shipped_model_is_small_and_carries_its_papers() -> None:
    folder = shipped_model()
    assert (folder / "model.safetensors").stat().st_size <= 16 * 2**20
    assert "Princeton" in (folder / "LICENSE-WordNet").read_text()
    assert "WordNet" in (folder / "MODEL_CARD.md").read_text()


def copy_of_model(folder: Path) -> Path:
    target = folder / "copied"
    shutil.copytree(shipped_model(), target)
    return target


def test_an_engine_is_named_after_its_folder(tmp_path: Path) -> None:
    engine = TorchEngine(copy_of_model(tmp_path), TorchOptions(max_batch=2))
    assert engine.models == ("copied",)
    asyncio.run(engine.close())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hidden_size", 128, "does not fit"),
        ("vocab_size", "many", "not a configuration"),
        ("num_attention_heads", 7, "multiple"),
        ("model_type", "gpt2", "expected model_type"),
        ("use_sliding_window", True, "sliding"),
        ("rope_scaling", {"rope_type": "longrope", "factor": 2.0}, "rope_type"),
        ("vocab_size", 100, "does not fit"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path, name: str, value: object, said: str) -> None:
    folder = copy_of_model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=said):
        TorchEngine(folder)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = copy_of_model(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.norm\.weight"):
        TorchEngine(folder)


def test_a_tokenizer_without_the_markers_is_refused(tmp_path: Path) -> None:
    folder = copy_of_model(tmp_path)
    text = (folder / "tokenizer.json").read_text()
    for marker in SPECIAL_TOKENS:
        text = text.replace(marker, marker.replace("|", "!"))
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ValueError, match="expected special tokens"):
        TorchEngine(folder)


def test_qwen_shaped_models_fit_too(tmp_path: Path) -> None:
    """Biases on the projections, separate output weights, a context that is no whole cache block."""
    config = ModelConfig(
        vocab_size=read_config(shipped_model() / "config.json").vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=100,
        tie_word_embeddings=False,
        attention_bias=True,
    )
    torch.manual_seed(0)
    save_file(LanguageModel(config).state_dict(), tmp_path / "model.safetensors")
    fields = {name: getattr(config, name) for name in config.__struct_fields__}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    shutil.copy(shipped_model() / "tokenizer.json", tmp_path)
    engine = TorchEngine(tmp_path, TorchOptions(max_batch=3))
    asked = request("r", "Hello", limit=90, sampling=SamplingParams(100.0))
    chunks = asyncio.run(collect(engine.submit(asked)))
    check_answer(chunks, asked)
    asyncio.run(engine.close())


def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="device 'cuda:99' is not usable here"):
        TorchEngine(shipped_model(), TorchOptions(device="cuda:99"))
