"""The continuous batching of ``transformers``, where it is installed, on the same model and prompts."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

from inference.bench.throughput import Speed

PAGE = 16
MAX_BATCH_TOKENS = 512


def speed(folder: Path, prompts: list[list[int]], limits: list[int], threads: int, rounds: int = 2) -> Speed | None:
    """The best of ``rounds`` of greedy answers of exactly these lengths; None where the library is absent.

    fp32 on the CPU with ``sdpa`` attention and pages of 16, the fastest of its settings in our trials.
    """
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError:
        return None
    import torch

    torch.set_num_threads(threads)
    model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    config = library.GenerationConfig(max_new_tokens=max(limits), do_sample=False, eos_token_id=-1, pad_token_id=0)
    batching = library.ContinuousBatchingConfig(
        block_size=PAGE, max_batch_tokens=MAX_BATCH_TOKENS, use_cuda_graph=False, allow_block_sharing=False
    )
    with model.continuous_batching_context_manager(
        generation_config=config, continuous_batching_config=batching
    ) as run:
        speeds = [_round(run, prompts, limits) for _ in range(rounds)]
    return max(speeds, key=lambda speed: speed.tokens_per_second)


def _round(run: Any, prompts: list[list[int]], limits: list[int]) -> Speed:
    begun, spent = time.perf_counter(), time.process_time()
    # none is added before the last round's have ended, so their names may come again
    for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        run.add_request(prompt, request_id=str(index), max_new_tokens=limit)
    done = 0
    while done < len(prompts):
        answer = run.get_result(timeout=60)
        if answer is None:
            raise TimeoutError("transformers' continuous batching gave no answer for a minute")
        done += bool(answer.is_finished())
    seconds, spent = time.perf_counter() - begun, time.process_time() - spent
    return Speed(sum(limits) / seconds, sum(limits) / spent)
