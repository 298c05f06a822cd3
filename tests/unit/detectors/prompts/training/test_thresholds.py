"""A threshold rests on many sources: none places it alone, and leaving one out moves it by less than is stated."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.prompts.training.decide import zones
from detectors.prompts.training.rows import LabelledText
from detectors.prompts.training.thresholds import SHARES, Sources, abroad, bounded, placed


def sources(means: list[float], count: int = 400, seed: int = 3, language: str = "en") -> Sources:
    draw = np.random.default_rng(seed)
    rows = [LabelledText("x", "benign", f"s{at}", language) for at in range(len(means)) for _ in range(count)]
    odds = np.concatenate([draw.normal(mean, 1.0, count) for mean in means])
    return Sources.of(rows, odds, np.ones(len(rows), dtype=np.bool_))


MANY = [-4 + 0.3 * (at % 5) for at in range(30)]


@pytest.mark.parametrize("aim", [0.0005, 0.007, 0.03])
@pytest.mark.parametrize("means", [MANY, [*MANY, 2.0], MANY[:3], [*MANY[:3], 1.0]])
def test_leaving_a_source_out_moves_a_threshold_by_less_than_its_interval(means: list[float], aim: float) -> None:
    every = sources(means)
    cut, half = placed(every, aim)
    found = min(SHARES, key=lambda share: (abs(abroad(every, share) - aim), share))
    assert cut == bounded(every, found)
    left = [bounded(every.without(name), found) for name in every.names]
    centre = float(np.mean(left))
    assert max(abs(value - centre) for value in left) <= half + 1e-9


def test_one_strange_source_moves_a_threshold_of_many_little() -> None:
    plain, strange = sources(MANY), sources([*MANY, 9.0])
    assert bounded(strange, 0.01) - bounded(plain, 0.01) < 0.6
    assert np.quantile(np.concatenate([np.full(12_000, -4.0), np.full(400, 9.0)]), 0.99) > 8, "as a plain tail would"


def test_a_language_of_few_sources_has_the_threshold_of_all() -> None:
    draw = np.random.default_rng(2)
    given = [LabelledText("x", "benign", f"s{at}", "en") for at in range(30) for _ in range(200)]
    given += [LabelledText("x", "benign", f"f{at}", "fr") for at in range(2) for _ in range(200)]
    odds = np.concatenate([draw.normal(-4, 1, 6_000), draw.normal(2, 1, 400)])
    cut = zones(given, odds, np.zeros(len(given), dtype=np.intp))
    assert abs(cut["other"].flag - cut["en"].flag) < 0.8
    assert cut["other"].flag < 0 < float(np.quantile(odds[6_000:], 0.99))


def test_a_single_source_has_its_own_tail_and_no_interval() -> None:
    alone = sources([-4.0])
    assert placed(alone, 0.01) == (bounded(alone, 0.01), 0.0)


def test_the_share_abroad_is_near_the_aim() -> None:
    every = sources(MANY, 2_000)
    cut, _ = placed(every, 0.01)
    over = np.average(every.above[int(np.searchsorted(every.grid, cut))], weights=every.weight)
    assert 0.005 < over < 0.02
