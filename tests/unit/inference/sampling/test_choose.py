"""Which token is drawn for which number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference.sampling.choose import adjusted, choose, logprobs, uniform
from inference.types import IMPOSSIBLE, SamplingParams

LOGITS = arrays(np.float32, st.integers(1, 30), elements=st.floats(-20, 20, width=32))
DRAW = st.floats(0, 1, exclude_max=True)


def allowed(logits: np.ndarray, sampling: SamplingParams) -> list[int]:
    """The definition, by sorting everything: the ids that may be drawn."""
    share = np.exp((logits.astype(np.float64) - logits.max()) / sampling.temperature)
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if sampling.top_k:
        order = order[: sampling.top_k]
    reached, total = 0.0, share[order].sum()
    for count, token in enumerate(order, 1):
        reached += share[token]
        # The slack forgives sums that differ in their last bits at the very edge.
        if reached >= sampling.top_p * total * (1 + 1e-9) and sampling.top_p < 1:
            return order[:count]
    return order


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.floats(0.05, 5), st.integers(0, 8), st.floats(0.05, 1), DRAW)
@example(np.array([-3e-28, 0], dtype=np.float32), 1.0, 1, 1.0, 0.0)
@example(np.array([-3e-28, 0, 1], dtype=np.float32), 1.0, 2, 1.0, 0.9)
def test_only_likely_enough_tokens_are_drawn(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, draw: float
) -> None:
    sampling = SamplingParams(temperature, top_p, top_k)
    assert choose(logits, sampling, draw) in allowed(logits, sampling)


@settings(max_examples=100, deadline=None)
@given(LOGITS, DRAW)
def test_greedy_takes_the_first_of_the_most_likely(logits: np.ndarray, draw: float) -> None:
    assert choose(logits, SamplingParams(), draw) == int(np.argmax(logits))
    assert choose(logits, SamplingParams(2.0, top_k=1), draw) == int(np.argmax(logits))


@pytest.mark.parametrize("sampling", [SamplingParams(1.0), SamplingParams(1.0, 0.999999), SamplingParams(1.0, top_k=3)])
def test_shares_follow_the_logits(sampling: SamplingParams) -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3], dtype=np.float32))
    drawn = [choose(logits, sampling, (step + 0.5) / 1000) for step in range(1000)]
    assert [drawn.count(token) for token in range(3)] == pytest.approx([200, 500, 300], abs=2)


def test_the_edge_between_two_tokens_belongs_to_the_later_one() -> None:
    even = np.zeros(2, dtype=np.float32)
    assert [choose(even, SamplingParams(1.0), draw) for draw in (0.0, 0.499, 0.5, 0.999)] == [0, 0, 1, 1]


@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 100.0])
@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0 - 2.0**-53])
def test_extreme_temperatures_and_banned_tokens(temperature: float, draw: float) -> None:
    logits = np.array([-np.inf, 1.0, 3e38, -np.inf], dtype=np.float32)
    assert choose(logits, SamplingParams(temperature), draw) == 2
    assert choose(np.array([-np.inf, 0, 0, -np.inf], dtype=np.float32), SamplingParams(temperature), draw) in (1, 2)


def test_numbers_depend_on_id_seed_and_position_only() -> None:
    base = uniform("r", 1, 0)
    assert base == uniform("r", 1, 0)
    others = [("r", 2, 0), ("r", None, 0), ("s", 1, 0), ("r", 1, 1), ("r|1", None, 0), ("r", 11, 1), ("r", 1, 11)]
    assert len({uniform(*other) for other in others} | {base}) == 8


def test_numbers_are_even() -> None:
    drawn = [uniform("r", None, position) for position in range(4000)]
    assert 0 <= min(drawn) < max(drawn) < 1
    assert np.histogram(drawn, bins=4, range=(0, 1))[0] == pytest.approx([1000] * 4, abs=150)


@settings(max_examples=100, deadline=None)
@given(LOGITS, st.floats(0.1, 5), st.floats(0.01, 1), DRAW)
def test_tokens_much_less_likely_than_the_likeliest_are_not_drawn(
    logits: np.ndarray, temperature: float, min_p: float, draw: float
) -> None:
    token = choose(logits, SamplingParams(temperature, min_p=min_p), draw)
    share = np.exp((logits[token].astype(np.float64) - logits.max()) / temperature)
    assert share >= min_p * (1 - 1e-9)


def test_penalties_follow_their_definitions() -> None:
    logits = np.array([2.0, -2.0, 1.0, 0.5], dtype=np.float32)
    tokens = [0, 1, 2, 2]
    repeated = adjusted(logits, SamplingParams(repetition_penalty=2.0), tokens, 2)
    assert repeated.tolist() == [1.0, -4.0, 0.5, 0.5]
    said = adjusted(logits, SamplingParams(presence_penalty=0.5, frequency_penalty=0.25), tokens, 2)
    assert said.tolist() == [2.0, -2.0, 0.0, 0.5], "the prompt's tokens are not counted"
    biased = adjusted(logits, SamplingParams(logit_bias=((3, 10.0), (0, -100.0))), tokens, 2)
    assert biased.tolist() == [-98.0, -2.0, 1.0, 10.5]
    assert adjusted(logits, SamplingParams(temperature=1.0, top_k=3), tokens, 2) is logits
    assert logits.tolist() == [2.0, -2.0, 1.0, 0.5], "the model's own row is left alone"


def test_no_bias_brings_back_a_banned_token() -> None:
    logits = np.array([-np.inf, 0.0], dtype=np.float32)
    row = adjusted(logits, SamplingParams(logit_bias=((0, 100.0),), repetition_penalty=2.0), [0], 1)
    assert choose(row, SamplingParams(100.0), 0.0) == 1


def test_log_probabilities_are_coarse_and_of_the_models_own_logits() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.3, 1e-30], dtype=np.float32))
    told = logprobs(logits, 2, 2)
    assert told.token == 2
    assert told.logprob == pytest.approx(-1.2)
    assert told.top == ((1, -0.7), (2, -1.2))
    banned = np.array([0.0, -np.inf], dtype=np.float32)
    assert logprobs(banned, 0, 2).top == ((0, 0.0), (1, IMPOSSIBLE))


@pytest.mark.parametrize("top_p", [0.5, 1.0])
def test_penalties_that_pass_the_largest_number_leave_something_to_draw(top_p: float) -> None:
    logits = np.array([3e38, -3e38, 0.0], dtype=np.float32)
    sampling = SamplingParams(
        1.0, top_p=top_p, repetition_penalty=0.1, frequency_penalty=-2.0, logit_bias=((0, 100.0),), min_p=0.1
    )
    row = adjusted(logits, sampling, [0, 1, 0], 1)
    assert row.max() == np.finfo(np.float32).max
    assert choose(row, sampling, 0.99) == 0
