"""The CUDA path against ``transformers``, and against itself with and without captured graphs.

On a CUDA device where there is one. ``TRITON_INTERPRET=1`` runs the kernels on the CPU instead, without graphs.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model.layers import Linear
from inference.model.transformer import LanguageModel, load_model
from inference.ports import LogitsQuery, RowSummary, ScheduledTokens, StepInput
from inference.types import FinishReason, GenerationRequest, SamplingParams, Turn
from tests.unit.inference.doubles import collect
from tests.unit.inference.model.test_shapes import LENGTH, SHAPES, feed, reference_of

CUDA = torch.cuda.is_available()
if not CUDA and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device, and TRITON_INTERPRET=1 is not set", allow_module_level=True)

# they import Triton
from inference.model.forward_cuda import CudaForward  # noqa: E402
from inference.sampling.draw_torch import draw_rows  # noqa: E402
from inference.sampling.draw_triton import draw_rows as draw_rows_on_device  # noqa: E402

DEVICE = torch.device("cuda" if CUDA else "cpu")
CLOSE = 2e-3
SERVED = [name for name in SHAPES if CUDA or name in ("llama, llama3", "qwen3", "deepseek v3")]
on_cuda = pytest.mark.skipif(not CUDA, reason="needs a CUDA device")


class Words:
    """A vocabulary of single letters without an end."""

    def __init__(self, size: int) -> None:
        self.size, self.end, self.longest = size, size, 1

    def piece(self, token: int) -> bytes:
        return bytes([97 + token % 26])

    def encode(self, turns: tuple[Turn, ...]) -> list[int]:
        return [byte % self.size for byte in turns[-1].text.encode()]


def served(model: LanguageModel, *, graphs: bool, slots: int = 8) -> CudaForward:
    return CudaForward(model.to(DEVICE), Words(model.config.vocab_size), slots, cache_tokens=1024, graphs=graphs)


def rows(forward: CudaForward, *inputs: StepInput) -> list[np.ndarray]:
    found = forward.logits(inputs)
    assert not any(isinstance(row, RowSummary) for row in found)
    return [np.asarray(row) for row in found]


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("graphs", [False, pytest.param(True, marks=on_cuda)])
def test_logits_equal_the_reference(name: str, graphs: bool, tmp_path: Path) -> None:
    reference = reference_of(name, tmp_path)
    forward = served(load_model(tmp_path), graphs=graphs)
    draw = np.random.default_rng(3)
    first, second = draw.integers(0, 211, LENGTH).tolist(), draw.integers(0, 211, 40).tolist()
    with torch.no_grad():
        wanted, other = (reference(torch.tensor([ids])).logits[0].numpy() for ids in (first, second))
    (whole,) = rows(forward, feed(0, 0, first))
    assert np.abs(whole - wanted[-1]).max() < CLOSE
    for start, end in [(0, 5), (5, 6), (6, 70), (70, 80)]:
        (piece,) = rows(forward, feed(1, start, first[start:end]))
        assert np.abs(piece - wanted[end - 1]).max() < CLOSE
    # one reads its prompt while the other writes token by token
    for step in range(5):
        now = slice(step * 4, step * 4 + 4)
        mixed = rows(forward, feed(3, now.start, second[now]), feed(1, 80 + step, [first[80 + step]]))
        assert np.abs(mixed[1] - wanted[80 + step]).max() < CLOSE
        assert np.abs(mixed[0] - other[now.stop - 1]).max() < CLOSE
    for step in range(5):
        pair = rows(forward, feed(3, 20 + step, [second[20 + step]]), feed(1, 85 + step, [first[85 + step]]))
        assert np.abs(pair[0] - other[20 + step]).max() < CLOSE
        assert np.abs(pair[1] - wanted[85 + step]).max() < CLOSE


def test_a_short_prompt_in_pieces_equals_the_reference(tmp_path: Path) -> None:
    reference = reference_of("qwen3", tmp_path)
    forward = served(load_model(tmp_path), graphs=False)
    tokens = [5, 200, 17, 3, 90, 44]
    with torch.no_grad():
        wanted = reference(torch.tensor([tokens])).logits[0].numpy()
    for start, end in [(0, 4), (4, 5), (5, 6)]:
        (piece,) = rows(forward, feed(1, start, tokens[start:end]))
        assert np.abs(piece - wanted[end - 1]).max() < CLOSE


@pytest.mark.parametrize("bits", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("listed", [0, 5, 64])
def test_what_the_kernel_draws_is_what_torch_draws(bits: torch.dtype, listed: int) -> None:
    draws = torch.rand(24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = torch.randn((24, 2500), generator=torch.Generator().manual_seed(0)).to(DEVICE, bits) * 4
    logits[:, 7] = -torch.inf
    logits[3], logits[3, 2400] = -torch.inf, 1.0
    settings = torch.stack(
        (torch.tensor([0.0, 0.3, 1.0, 2.0]).double().repeat(6), draws, (draws > 0.4).double()), dim=1
    )
    max_logits, argmax = logits.max(-1)
    top = logits.topk(listed)
    rest = (logits, max_logits.float(), argmax, (top.indices, top.values.float()), settings.to(DEVICE))
    (found, totals), (wanted, sums) = draw_rows_on_device(*rest), draw_rows(*rest)
    assert torch.allclose(totals, sums, rtol=1e-5)
    # sums in another order may move a draw that falls on an edge
    assert (found == wanted).sum() >= 23
    assert torch.isfinite(logits[torch.arange(24), found]).all()


def test_a_summary_of_a_row_says_what_the_whole_row_says(tmp_path: Path) -> None:
    reference_of("llama, llama3", tmp_path)
    forward = served(load_model(tmp_path), graphs=False)
    tokens = list(range(30))
    (row,) = rows(forward, feed(0, 0, tokens))
    queries = [
        LogitsQuery(False),
        LogitsQuery(False, 0.7, 0.3),
        LogitsQuery(False, 0.7, 0.999, 64),
        LogitsQuery(False, 1.0, 0.5, 100),
        LogitsQuery(),
    ]
    inputs = [StepInput(feed(lane, 0, tokens).scheduled, tokens, None, query) for lane, query in enumerate(queries)]
    *found, whole = forward.logits(inputs)
    assert np.allclose(whole, row, atol=CLOSE)  # type: ignore[arg-type]
    order = np.argsort(-row, kind="stable")
    for query, summary in zip(queries, found, strict=False):
        assert isinstance(summary, RowSummary)
        assert np.allclose(summary.fetch(), row, atol=CLOSE)
        assert summary.max_logit == pytest.approx(row.max(), abs=CLOSE)
        assert np.allclose(summary.logits, row[order[: query.top]], atol=CLOSE)
        if query.temperature:
            assert summary.exp_sum == pytest.approx(np.exp((row - row.max()) / query.temperature).sum(), rel=0.01)
    assert isinstance(found[0], RowSummary)
    assert found[0].drawn == order[0]


def test_a_batch_mixes_requests_with_an_adapter_and_without(tmp_path: Path) -> None:
    reference_of("llama, llama3", tmp_path)
    model = load_model(tmp_path).to(DEVICE)
    name = ("acme", "tone")
    generator = torch.Generator().manual_seed(3)
    projection = model.get_submodule("model.layers.0.self_attn.q_proj")
    assert isinstance(projection, Linear)
    down, up = (torch.randn(shape, generator=generator).to(DEVICE) for shape in ((2, 48), (48, 2)))
    projection.adapters[name] = (down, up)
    forward = CudaForward(model, Words(211), 4, cache_tokens=1024, adapters={name: b"digest"}, graphs=CUDA)
    prompts = [[5, 9, 2], [7, 7, 1], [5, 9, 2]]
    through = [name, None, None]
    asked = [
        StepInput(feed(lane, 0, tokens).scheduled, tokens, adapter)
        for lane, (tokens, adapter) in enumerate(zip(prompts, through, strict=True))
    ]
    alone = [rows(forward, one)[0] for one in asked]
    together = rows(forward, *asked)
    assert all(np.abs(one - other).max() < CLOSE for one, other in zip(alone, together, strict=True))
    assert np.abs(together[0] - together[2]).max() > 10 * CLOSE


def test_an_id_out_of_range_is_refused_before_it_reaches_the_device(tmp_path: Path) -> None:
    reference_of("qwen3", tmp_path)
    forward = served(load_model(tmp_path), graphs=False)
    with pytest.raises(IndexError):
        forward.logits([feed(0, 0, [1, 2, 10**9])])
    assert len(rows(forward, feed(0, 0, [1, 2, 3]))) == 1


def greedy(forward: CudaForward, prompts: list[list[int]], steps: int) -> list[list[int]]:
    texts = [list(prompt) for prompt in prompts]
    lanes = [tuple(range(8 * lane, 8 * lane + 8)) for lane in range(len(prompts))]
    begun = [0] * len(prompts)
    for _ in range(steps):
        inputs = [
            StepInput(
                ScheduledTokens(f"r{lane}", begun[lane], len(text) - begun[lane], True, lanes[lane]),
                text[begun[lane] :],
                None,
                LogitsQuery(False),
            )
            for lane, text in enumerate(texts)
        ]
        begun = [len(text) for text in texts]
        for text, summary in zip(texts, forward.logits(inputs), strict=True):
            assert isinstance(summary, RowSummary)
            text.append(summary.drawn)
    return texts


@on_cuda
@pytest.mark.parametrize("name", ["llama, llama3", "qwen2", "qwen3"])
@pytest.mark.parametrize("bits", [torch.float32, torch.bfloat16])
def test_graphs_change_no_token(name: str, bits: torch.dtype, tmp_path: Path) -> None:
    reference_of(name, tmp_path)
    draw = np.random.default_rng(1)
    prompts = [draw.integers(0, 211, size).tolist() for size in (3, 17, 40, 64, 5)]
    found = [greedy(served(load_model(tmp_path, bits), graphs=graphs), prompts, 40) for graphs in (True, False)]
    assert found[0] == found[1]


@on_cuda
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_half_precision_stays_near(name: str, tmp_path: Path) -> None:
    """No further from the reference in float32 than 1.3 times what the reference itself is in bfloat16."""
    reference = reference_of(name, tmp_path)
    forward = served(load_model(tmp_path, torch.bfloat16), graphs=True)
    tokens = np.random.default_rng(2).integers(0, 211, 60).tolist()
    with torch.no_grad():
        wanted = reference(torch.tensor([tokens])).logits[0, 50:].numpy()
        half = reference.to(DEVICE, torch.bfloat16)
        theirs = half(torch.tensor([tokens], device=DEVICE)).logits[0, 50:].float().cpu().numpy()
    rows(forward, feed(0, 0, tokens[:50]))
    found = np.stack([rows(forward, feed(0, at, [tokens[at]]))[0] for at in range(50, 60)])
    assert np.linalg.norm(found - wanted) < 1.3 * np.linalg.norm(theirs - wanted)


@on_cuda
def test_the_engine_serves_the_shipped_model() -> None:
    from inference.engines.torch import TorchEngine, TorchOptions, shipped_model

    async def run() -> None:
        engine = TorchEngine(shipped_model(), TorchOptions(max_batch=8, device="cuda", cache_tokens=16_384))
        samplings = [
            SamplingParams(),
            SamplingParams(1.0),
            SamplingParams(0.8, top_p=0.9),
            SamplingParams(1.2, top_k=5),
            SamplingParams(1.0, min_p=0.1),
            SamplingParams(0.5, repetition_penalty=1.3),
            SamplingParams(logit_bias=((5, 3.0),)),
            SamplingParams(1.0, logprobs=3),
        ]
        asked = [
            GenerationRequest(f"r{index}", f"t{index % 3}", (Turn("user", "What is a dog?"),), 30, sampling)
            for index, sampling in enumerate(samplings * 3)
        ]
        answers = await asyncio.gather(*(collect(engine.submit(request)) for request in asked))
        for chunks in answers:
            assert chunks[-1].finish in (FinishReason.STOP, FinishReason.LENGTH)
            assert chunks[-1].output_tokens > 0
        plain = {"".join(chunk.text for chunk in answers[index]) for index in range(0, len(asked), 8)}
        assert any("dog" in text or "animal" in text for text in plain) or plain
        await engine.close()

    asyncio.run(run())
