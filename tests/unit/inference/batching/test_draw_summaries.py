"""Drawing from what a device tells of a row gives each token the likelihood that the whole row gives it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence as Items
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.batching.batch import Batch
from inference.batching.draw_summaries import FILTER_TOP, SummaryRow, draw_summaries, query_for
from inference.batching.options import BatchOptions
from inference.batching.sequence import Sequence
from inference.ports import TOURNAMENT_TOP, LogitsRow, RowSummary, StepInput
from inference.sampling.choose import candidates, choose
from inference.sampling.draw_torch import CHUNK, draw_and_topk, draw_rows
from inference.types import Chunk, SamplingParams
from inference.watermark.keys import MarkKey
from inference.watermark.marking import MarkPolicy, TenantMarker
from inference.watermark.secrets import SECRET_BYTES
from inference.watermark.tournament import reweigh
from tests.unit.inference.doubles import HashForward, check_answer, request

VOCABULARY = 3 * CHUNK - 100
SECRET = b"m" * SECRET_BYTES
KEY = MarkKey(SECRET, "acme", 1)
CONTEXT = (3, 1, 4, 1)
DRAWS = 400
SAMPLINGS = {
    "plain": SamplingParams(1.0),
    "hot": SamplingParams(3.0),
    "cold": SamplingParams(0.2),
    "top k": SamplingParams(1.0, top_k=7),
    "top p": SamplingParams(1.0, top_p=0.7),
    "top p beyond what is told": SamplingParams(5.0, top_p=0.95),
    "min p": SamplingParams(1.0, min_p=0.05),
    "all": SamplingParams(1.3, top_p=0.9, top_k=40, min_p=0.02),
}


def logits(seed: int) -> torch.Tensor:
    row = torch.randn((1, VOCABULARY), generator=torch.Generator().manual_seed(seed)) * 3
    row[0, 100:200] = -torch.inf
    return row


def summary_of(row: torch.Tensor, sampling: SamplingParams, draw: float, *, marked: bool) -> RowSummary:
    return draw_and_topk(row, [query_for(sampling, lambda: draw, marked=marked)], draw_rows)[0]


def shares(row: np.ndarray, sampling: SamplingParams, *, marked: bool) -> dict[int, float]:
    """The definition: likelihoods of the whole row, its likeliest held against each other where it is marked."""
    ids, weights = candidates(row, sampling)
    if marked:
        top = np.argsort(-weights, kind="stable")[:TOURNAMENT_TOP]
        weights[top] = reweigh(ids[top][None], weights[top][None], [CONTEXT], [KEY])[0]
    return dict(zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True))


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_each_token_is_drawn_as_often_as_its_likelihood_says(name: str, marked: bool) -> None:
    sampling, row = SAMPLINGS[name], logits(4)
    draws = [(step + 0.5) / DRAWS for step in range(DRAWS)]
    wanted = shares(row[0].numpy(), sampling, marked=marked)
    lists = [summary_of(row, sampling, draw, marked=marked) for draw in draws]
    rows = [
        SummaryRow(str(step), one, sampling, draw, CONTEXT, KEY if marked else None)
        for step, (one, draw) in enumerate(zip(lists, draws, strict=True))
        if len(one.ids)
    ]
    found = Counter([*draw_summaries(rows).values(), *(one.drawn for one in lists if not len(one.ids))])
    assert set(found) <= set(wanted)
    # evenly spaced draws meet each token's interval as often as its length says, but for its two ends
    assert all(abs(found[token] - share * DRAWS) <= 2 for token, share in wanted.items())


def test_a_plain_draw_picks_what_the_whole_row_would() -> None:
    row, sampling = logits(5), SamplingParams(0.9)
    for step in range(200):
        draw = (step + 0.5) / 200
        assert summary_of(row, sampling, draw, marked=False).drawn == choose(row[0].numpy(), sampling, draw)


@pytest.mark.parametrize("draw", [0.0, 1.0 - 2.0**-53])
@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 1.0, 100.0])
@pytest.mark.parametrize("marked", [False, True])
def test_extreme_draws_and_temperatures_pick_a_token_that_may_be_drawn(
    draw: float, temperature: float, marked: bool
) -> None:
    row = torch.full((1, VOCABULARY), -torch.inf)
    row[0, [5, 2000]] = torch.tensor([1.0, 3e38])
    row[0, 7] = 3e38 if temperature > 1 else -torch.inf
    sampling = SamplingParams(temperature)
    one = summary_of(row, sampling, draw, marked=marked)
    found = draw_summaries([SummaryRow("r", one, sampling, draw)])["r"] if marked else one.drawn
    assert found in (7, 2000)


def test_the_likeliest_is_the_first_of_several() -> None:
    row = torch.zeros((1, VOCABULARY))
    row[0, [9, 1500]] = 2.0
    assert summary_of(row, SamplingParams(), 0.5, marked=True).drawn == 9
    assert summary_of(row, SamplingParams(2.0, top_k=1), 0.5, marked=True).drawn == 9


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(1.0, repetition_penalty=1.1),
        SamplingParams(1.0, presence_penalty=0.5),
        SamplingParams(1.0, frequency_penalty=0.5),
        SamplingParams(logit_bias=((3, 1.0),)),
        SamplingParams(logprobs=2),
        SamplingParams(1.0, top_k=FILTER_TOP + 1),
    ],
)
def test_a_request_that_needs_the_whole_row_asks_for_it(sampling: SamplingParams) -> None:
    assert query_for(sampling, lambda: 0.5, marked=False).whole


def test_numbers_that_are_none_are_told() -> None:
    row = logits(1)
    row[0, 50] = torch.nan
    for sampling in (SamplingParams(), SamplingParams(1.0), SamplingParams(1.0, top_p=0.5)):
        assert np.isnan(summary_of(row, sampling, 0.5, marked=False).max_logit)


class Telling(HashForward):
    """The double, telling of its rows what is asked."""

    def logits(self, inputs: Items[StepInput]) -> list[LogitsRow | RowSummary]:  # type: ignore[override]
        rows = super().logits(inputs)
        items = [item for item in inputs if item.scheduled.last]
        return [
            row if item.query.whole else draw_and_topk(torch.from_numpy(row)[None], [item.query], draw_rows)[0]
            for item, row in zip(items, rows, strict=True)
        ]


def run(forward: HashForward, marked: bool) -> dict[str, list[Chunk]]:
    marker = TenantMarker(lambda tenant: SECRET, lambda tenant: MarkPolicy(), lambda: 0) if marked else None
    batch = Batch(forward, BatchOptions(max_waiting=100, marker=marker), clock=lambda: 0.0)
    samplings = [
        SamplingParams(),
        SamplingParams(1.0),
        SamplingParams(1.0, repetition_penalty=1.2),
        SamplingParams(1.0, logprobs=2),
        SamplingParams(2.0, top_k=1),
    ]
    asked = [request(f"r{index}", f"hello {index}", sampling=sampling) for index, sampling in enumerate(samplings)]
    for one in asked:
        batch.join(Sequence(one, forward.encode(one.turns)))
    answers: dict[str, list[Chunk]] = {}
    while batch.stats().running or batch.stats().waiting:
        for chunk in batch.step():
            answers.setdefault(chunk.request_id, []).append(chunk)
    for one in asked:
        check_answer(answers[one.request_id], one)
    return answers


def test_unmarked_answers_of_a_batch_are_those_of_whole_rows() -> None:
    assert run(Telling(), marked=False) == run(HashForward(), marked=False)


def test_marked_answers_account_for_the_same_marks() -> None:
    found, wanted = run(Telling(ends=False), marked=True), run(HashForward(ends=False), marked=True)
    for name in ("r0", "r2", "r3", "r4"):
        assert found[name] == wanted[name]
    assert found["r1"][-1].mark is not None
    assert found["r1"][-1].mark.marked > 0


def test_a_nan_fails_its_request_alone() -> None:
    forward = Telling()
    batch = Batch(forward, BatchOptions(max_waiting=10), clock=lambda: 0.0)
    for name, text in (("good", "hello"), ("bad", "nan")):
        one = request(name, text)
        batch.join(Sequence(one, forward.encode(one.turns)))
    ends: dict[str, Chunk] = {}
    while batch.stats().running or batch.stats().waiting:
        ends |= {chunk.request_id: chunk for chunk in batch.step() if chunk.finish is not None}
    assert ends["bad"].error is not None
    assert ends["good"].error is None


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are tested on the device")
def test_the_kernels_are_right_in_tritons_interpreter() -> None:
    tests = Path(__file__).parents[1] / "model" / "test_forward_cuda.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        "64-bits1 or short",
        str(tests),
    ]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def test_no_engine_on_the_cpu_imports_triton() -> None:
    code = "import inference.engines.torch, inference.sampling.draw_torch, sys; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
