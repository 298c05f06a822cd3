"""False-alarm probabilities: exact, and as frequent as they say."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from math import comb

import numpy as np
import pytest

from inference.watermark.detect import LAYER_WEIGHTS, detect, scored_pairs, total_of
from inference.watermark.keys import MarkKey
from inference.watermark.secrets import SECRET_BYTES
from inference.watermark.significance import EXACT_TRIALS, family, tail_probability


@pytest.mark.parametrize(("trials", "weights"), [(1, (1,)), (4, (3, 2, 1)), (3, (5, 5, 1)), (7, (2, 1))])
def test_the_tail_is_that_of_all_outcomes_counted(trials: int, weights: tuple[int, ...]) -> None:
    sums = Counter({0: 1})
    for weight in weights * trials:
        sums = Counter({total: sums[total] + sums[total - weight] for total in range(max(sums) + weight + 1)})
    outcomes = 2 ** (trials * len(weights))
    for score in range(-1, max(sums) + 2):
        expected = sum(count for total, count in sums.items() if total >= score) / outcomes
        assert tail_probability(score, trials, weights) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_far_tails_stay_exact() -> None:
    expected = sum(comb(1000, k) for k in range(900, 1001)) / 2**1000  # about 1e-162
    assert tail_probability(900, 1000, (1,)) == pytest.approx(expected, rel=1e-6)


def test_long_texts_have_a_normal_tail_and_longer_ones_a_bound_that_is_never_too_small() -> None:
    def five_deviations(trials: int) -> float:
        ahead = 5 * (trials * sum(w * w for w in LAYER_WEIGHTS) / 4) ** 0.5
        return tail_probability(int(trials * sum(LAYER_WEIGHTS) / 2 + ahead), trials, LAYER_WEIGHTS)

    assert 0.9 < five_deviations(8192) / 2.867e-7 < 1.1
    assert 2.867e-7 < five_deviations(2 * EXACT_TRIALS) < 100 * 2.867e-7


def test_alarms_are_as_frequent_as_stated() -> None:
    draw = np.random.default_rng(3)
    keys = [MarkKey(bytes(SECRET_BYTES), f"t{n}", 0) for n in range(20)]
    pairs = [scored_pairs(draw.permutation(300)[:120].tolist()) for _ in range(200)]
    least = bisect_left(range(19_140), True, key=lambda score: tail_probability(score, 116, LAYER_WEIGHTS) < 0.1)
    totals = np.array([[total_of(key, *pair) for key in keys] for pair in pairs])
    # five standard deviations of a binomial share; the seed is fixed
    assert abs(np.mean(totals >= least) - 0.1) < 5 * (0.09 / totals.size) ** 0.5
    stated = family(tail_probability(least, 116, LAYER_WEIGHTS), len(keys))
    assert abs(np.mean(totals.max(axis=1) >= least) - stated) < 5 * (stated * (1 - stated) / len(totals)) ** 0.5


def test_a_repeated_passage_is_no_new_evidence() -> None:
    key = MarkKey(bytes(SECRET_BYTES), "t", 0)
    text = list(range(40))
    once, again = detect(text, [key]).best, detect(text * 5, [key]).best
    assert once is not None
    assert again is not None
    # the seams alone are new
    assert again.scored - once.scored == 4


def test_many_keys_cost_their_number() -> None:
    assert family(1e-9, 1000) == pytest.approx(1e-6, rel=1e-5)
    assert family(1.0, 5) == 1.0
    assert family(0.5, 2) == pytest.approx(0.75)
