"""The speed of decoding on a CUDA device: of the step alone, and of the whole engine around it.

A step's floor is the time in which memory gives out what the step has to read once: the weights, and the keys and
values of every position attended to.
"""

from __future__ import annotations

import asyncio
import gc
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from inference.batching.draw_summaries import query_for
from inference.batching.loop import BatchingEngine
from inference.batching.options import BatchOptions
from inference.bench.shapes import SHAPES, EndlessVocabulary, random_model, step_bytes
from inference.model.forward_cuda import CudaForward
from inference.model.transformer import LanguageModel
from inference.ports import LogitsQuery, ScheduledTokens, StepInput
from inference.types import GenerationRequest, SamplingParams, Turn
from inference.watermark.marking import Marker, MarkPolicy, TenantMarker
from inference.watermark.secrets import SECRET_BYTES, of_master

BATCHES = (1, 4, 16, 64, 128, 256)
DATASHEET = {"NVIDIA H100 80GB HBM3": 3.35e12, "NVIDIA H200": 4.8e12}
"""Bytes per second of a device's memory by its maker."""
STEPS = 30
SAMPLED = SamplingParams(temperature=1.0)


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of each prompt, and of each answer."""

    prompt: int
    tokens: int


def measure(shapes: list[str], batches: list[int], compare: int, load: Load) -> dict[str, Any]:
    """All figures; ``ValueError`` where there is no CUDA device."""
    if not torch.cuda.is_available():
        raise ValueError("expected a CUDA device, got none that torch finds; run it on a machine with one")
    device = torch.device("cuda")
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "copy_bytes_per_s": copy_speed(device),
        "datasheet_bytes_per_s": DATASHEET.get(torch.cuda.get_device_name(device)),
        "dtype": "bfloat16",
        "load": asdict(load),
        "shapes": {},
    }
    for name in shapes:
        model = random_model(SHAPES[name], device)
        _say(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e9:.2f} G parameters")
        report["shapes"][name] = _shape(model, batches, compare, load, report["copy_bytes_per_s"])
        del model
        _forget()
    return report


def copy_speed(device: torch.device) -> float:
    """Bytes read plus written per second by a copy of 2 GiB within the device, the best of ten."""
    source = torch.randint(0, 100, (1 << 31,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds = min(_timed(lambda: target.copy_(source)) for _ in range(10))
    return 2 * source.numel() / seconds


def _shape(model: LanguageModel, batches: list[int], compare: int, load: Load, copied: float) -> dict[str, Any]:
    slots = max(batches)
    rows = []
    begun = time.perf_counter()
    forward = _forward(model, slots, load, graphs=True)
    _say(f"captured in {time.perf_counter() - begun:.1f} s")
    for batch in batches:
        row = _step_row(forward, model, batch, load, copied)
        row |= asyncio.run(_engine(forward, batch, load))
        rows.append(row)
        _say(str(row))
    figures: dict[str, Any] = {"batches": rows}
    if compare:
        figures["switches"] = _switches(forward, model, compare, load)
        _say(str(figures["switches"]))
    return figures


def _switches(forward: CudaForward, model: LanguageModel, batch: int, load: Load) -> dict[str, Any]:
    marker = TenantMarker(of_master(secrets.token_bytes(SECRET_BYTES)).mark, lambda tenant: MarkPolicy(), lambda: 0)
    figures: dict[str, Any] = {
        "batch": batch,
        "greedy": asyncio.run(_engine(forward, batch, load)),
        "sampled": asyncio.run(_engine(forward, batch, load, SAMPLED)),
        "sampled, marked": asyncio.run(_engine(forward, batch, load, SAMPLED, marker=marker)),
        "sampled, top-p 0.9, top-k 50": asyncio.run(
            _engine(forward, batch, load, SamplingParams(1.0, top_p=0.9, top_k=50))
        ),
        "prompts kept, asked again": asyncio.run(_engine(forward, batch, load, reuse=True)),
        "step_s with graphs": _step_s(forward, batch, load, SamplingParams()),
        "step_s sampled": _step_s(forward, batch, load, SAMPLED),
        "step_s sampled, marked": _step_s(forward, batch, load, SAMPLED, marked=True),
    }
    bare = _forward(model, batch, load, graphs=False)
    figures["step_s without graphs"] = _step_s(bare, batch, load, SamplingParams())
    figures["greedy, without graphs"] = asyncio.run(_engine(bare, batch, load))
    return figures


def _forward(model: LanguageModel, slots: int, load: Load, *, graphs: bool) -> CudaForward:
    cache = (load.prompt + load.tokens + 16) * slots * 2
    return CudaForward(model, EndlessVocabulary(model.config.vocab_size), slots, cache_tokens=cache, graphs=graphs)


def _step_row(forward: CudaForward, model: LanguageModel, batch: int, load: Load, copied: float) -> dict[str, float]:
    middle = load.prompt + load.tokens // 2
    seconds = _step_s(forward, batch, load, SamplingParams())
    least_bytes = step_bytes(model, batch, middle)
    busy = _device_s(forward, batch)
    return {
        "batch": batch,
        "device_s": busy,
        "device_share_of_copy": least_bytes / busy / copied,
        "step_s": seconds,
        "step_tokens_per_s": batch / seconds,
        "bytes": least_bytes,
        "share_of_copy": least_bytes / seconds / copied,
    }


def _step_s(forward: CudaForward, batch: int, load: Load, sampling: SamplingParams, *, marked: bool = False) -> float:
    """Median seconds of a call of ``logits`` for single tokens in the middle of their answers, host and device."""
    start = load.prompt + load.tokens // 2
    each = start // forward.block_size + 1
    generator = np.random.default_rng(0)
    query: LogitsQuery = query_for(sampling, lambda: 0.37, marked=marked)
    inputs = [
        StepInput(
            ScheduledTokens(f"r{row}", start, 1, True, tuple(range(row * each, row * each + each))),
            [int(generator.integers(forward.vocabulary))],
            None,
            query,
        )
        for row in range(batch)
    ]
    for _ in range(3):
        forward.logits(inputs)
    return statistics.median(_timed(lambda: forward.logits(inputs)) for _ in range(STEPS))


@torch.inference_mode()
def _device_s(forward: CudaForward, batch: int) -> float:
    """Seconds of the last step on the device alone, from weights to logits: many in a row, the host ahead of them."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    forward.replay(batch)
    begin.record()
    for _ in range(STEPS):
        forward.replay(batch)
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / STEPS / 1e3


async def _engine(
    forward: CudaForward,
    batch: int,
    load: Load,
    sampling: SamplingParams | None = None,
    *,
    reuse: bool = False,
    marker: Marker | None = None,
) -> dict[str, float]:
    """The engine's tokens per second: over all, and while all requests write; and the median seconds to the first."""
    engine = BatchingEngine(forward, ("random",), BatchOptions(keep_prefixes=reuse, marker=marker))
    figures: dict[str, float] = {}
    for round_ in range(2 if reuse else 1):
        requests = [
            GenerationRequest(
                request_id=f"bench-{round_}-{index}",
                tenant=f"tenant-{index % 4}",
                turns=(Turn("user", f"{index} {load.prompt}"),),
                max_tokens=load.tokens,
                sampling=sampling or SamplingParams(),
            )
            for index in range(batch)
        ]
        figures = await _answers(engine, requests)
    await engine.close()
    return figures


async def _answers(engine: BatchingEngine, requests: list[GenerationRequest]) -> dict[str, float]:
    arrivals: list[list[float]] = [[] for _ in requests]

    async def one(index: int) -> None:
        async for chunk in engine.submit(requests[index]):
            if chunk.error is not None:
                raise ValueError(chunk.error)
            arrivals[index] += [time.perf_counter()] * chunk.tokens

    begun = time.perf_counter()
    await asyncio.gather(*(one(index) for index in range(len(requests))))
    times = np.array(arrivals)
    first, last = times[:, 0].max(), times[:, -1].min()
    steady = int(((times > first) & (times <= last)).sum())
    return {
        "engine_tokens_per_s": times.size / float(times.max() - begun),
        "engine_decode_tokens_per_s": steady / float(last - first),
        "first_token_s": float(np.median(times[:, 0])) - begun,
    }


def _timed(act: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    act()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def _forget() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(report: dict[str, Any]) -> str:
    """The figures as Markdown."""
    load = report["load"]
    lines = [
        (
            f"{report['device']}, torch {report['torch']}, {report['dtype']}, prompts of {load['prompt']} and answers "
            f"of {load['tokens']} tokens; a copy within the device moves {report['copy_bytes_per_s'] / 1e12:.2f} TB/s"
        ),
        "",
        (
            "| shape | batch | device | of the copy's speed | call | of the copy's speed | tokens/s, call "
            "| tokens/s, engine writing | tokens/s, engine over all |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        (
            f"| {name} | {row['batch']} | {row['device_s'] * 1e3:.2f} ms | {row['device_share_of_copy']:.0%} "
            f"| {row['step_s'] * 1e3:.2f} ms | {row['share_of_copy']:.0%} | {row['step_tokens_per_s']:,.0f} "
            f"| {row['engine_decode_tokens_per_s']:,.0f} | {row['engine_tokens_per_s']:,.0f} |"
        )
        for name, shape in report["shapes"].items()
        for row in shape["batches"]
    ]
    return "\n".join(lines)
