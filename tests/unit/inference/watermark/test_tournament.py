"""The tournament: as in the paper, fair over keys, marked under one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inference.watermark.detect import detect
from inference.watermark.keys import LAYERS, MarkKey, epoch_of, with_token
from inference.watermark.secrets import SECRET_BYTES, create_master, read_master
from inference.watermark.tournament import (
    CANDIDATES,
    MarkedRow,
    _likeliest,
    compete,
    draw_marked,
    reference,
    tournament,
)

MASTER = bytes(range(SECRET_BYTES))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_closed_form_is_the_tournament_match_by_match(count: int, layers: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    weights = draw.dirichlet(np.ones(count), 3) * draw.uniform(0.1, 5.0, (3, 1))
    bits = draw.integers(0, 2, (3, count, layers)).astype(np.uint8)
    found = compete(weights, bits)
    np.testing.assert_allclose(found.sum(axis=1), weights.sum(axis=1), rtol=1e-9)
    for row in range(3):
        expected = np.array(reference(weights[row].tolist(), bits[row].tolist()))
        np.testing.assert_allclose(found[row] / weights[row].sum(), expected, atol=1e-9)


def test_over_keys_text_is_distributed_as_without_a_mark() -> None:
    """Chi-square over 2,000 keys; seeds are fixed, so this cannot fail by chance."""
    probabilities = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    draw, count = np.random.default_rng(7), 2000
    keys = [MarkKey(MASTER, f"tenant-{number}", 3) for number in range(count)]
    rows = [
        MarkedRow(str(n), np.arange(6), probabilities.copy(), (1, 2, 3, 4), key, draw.random())
        for n, key in enumerate(keys)
    ]
    found = np.bincount(list(draw_marked(rows).values()), minlength=6)
    expected = probabilities * count
    # the 99 % quantile of chi-square with 5 degrees of freedom
    assert ((found - expected) ** 2 / expected).sum() < 15.09, found
    marked = np.array([row.weights for row in rows])
    np.testing.assert_allclose(marked.mean(axis=0), probabilities, atol=0.04)
    assert marked.max(axis=1).mean() > 0.8, "under one key the choice is nearly settled"


def test_what_does_not_compete_keeps_its_probability() -> None:
    weights = np.linspace(1.0, 2.0, 200)
    ids = np.arange(1000, 1200)
    key = MarkKey(MASTER, "t", 0)
    points = (np.arange(4000) + 0.5) / 4000
    rows = [MarkedRow(str(n), ids, weights.copy(), (9, 9, 9, n % 50), key, point) for n, point in enumerate(points)]
    tokens = np.array(list(draw_marked(rows).values()))
    outside = np.mean(tokens < 1200 - CANDIDATES)
    expected = weights[: 200 - CANDIDATES].sum() / weights.sum()
    assert abs(outside - expected) < 0.03
    assert draw_marked([]) == {}


def test_a_row_is_drawn_the_same_in_any_company() -> None:
    draw = np.random.default_rng(5)
    keys = [MarkKey(MASTER, f"t{n}", 1) for n in range(3)]

    def row(n: int) -> MarkedRow:
        weights = np.random.default_rng(n).dirichlet(np.ones(90))
        return MarkedRow(f"r{n}", np.arange(90), weights, (n, 2, 3, 4), keys[n % 3], points[n])

    points = draw.random(20)
    together = draw_marked([row(n) for n in range(20)])
    assert together == {name: token for n in range(20) for name, token in draw_marked([row(n)]).items()}


def test_the_key_that_marked_is_named_and_no_other() -> None:
    draw = np.random.default_rng(11)
    key = MarkKey(MASTER, "acme", 600)
    text = draw.integers(0, 5000, 4).tolist()
    while len(text) < 60:
        ids = draw.choice(5000, 64, replace=False)
        text.append(tournament(ids, draw.dirichlet(np.ones(64)), text[-4:], key, draw.random()))
    others = [MarkKey(MASTER, tenant, epoch) for tenant in ("acme", "beta", "gamma") for epoch in (599, 601)]
    found = detect(text, [*others, MarkKey(MASTER, "acme", 600)])
    assert found.best is not None
    assert (found.best.tenant, found.best.epoch, found.tried, found.attributed) == ("acme", 600, 7, True)
    assert not detect(text, others).attributed
    assert not detect(text[:5], [key]).attributed
    assert detect([], [key]).false_alarm == 1.0


def test_each_key_of_a_text_put_together_is_named_and_no_other() -> None:
    draw = np.random.default_rng(12)
    marked = [MarkKey(MASTER, "acme", 600), MarkKey(MASTER, "acme", 601), MarkKey(MASTER, "beta", 600)]
    whole: list[int] = []
    for key in marked:
        text = draw.integers(0, 5000, 4).tolist()
        while len(text) < 150:
            ids = draw.choice(5000, 64, replace=False)
            text.append(tournament(ids, draw.dirichlet(np.ones(64)), text[-4:], key, draw.random()))
        whole += text
    others = [MarkKey(MASTER, f"t{number}", epoch) for number in range(20) for epoch in (600, 601)]
    found = detect(whole, [*others, *marked])
    assert found.best is not None
    named = {(score.tenant, score.epoch) for score in (found.best, *found.others)}
    assert named == {("acme", 600), ("acme", 601), ("beta", 600)}
    assert found.best.z >= found.others[0].z >= found.others[1].z
    assert detect(whole, others).others == ()


def test_bits_are_those_of_a_fixed_vector() -> None:
    """Texts marked by one build are found by all, on any machine."""
    key = MarkKey(MASTER, "t", 9)
    mixed = key.encrypt(np.array([[1, 2, 3, 4]], dtype="<u4"))
    found = key.encrypt(with_token(mixed, np.array([5], dtype=np.uint32)))
    assert found.tobytes().hex() == "0d3dcd24d51acb6588919f53657d8b0d"


def test_keys_differ_by_master_tenant_and_epoch() -> None:
    block = np.zeros((1, 4), dtype="<u4")
    made = [MarkKey(MASTER, *who).encrypt(block).tobytes() for who in (("a", 1), ("a", 2), ("b", 1), ("", 1))]
    made.append(MarkKey(MASTER[::-1], "a", 1).encrypt(block).tobytes())
    assert len(set(made)) == len(made)
    assert LAYERS <= 128
    with pytest.raises(ValueError, match="at least"):
        MarkKey(b"short", "a", 1)
    assert epoch_of(30 * 86_400_000) == 1


def test_the_master_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "watermark.key"
    assert create_master(path) == create_master(path) == read_master(path)
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        read_master(path)
    path.unlink()
    path.write_bytes(b"x")
    path.chmod(0o600)
    with pytest.raises(ValueError, match="32 bytes"):
        read_master(path)


@given(arrays(np.float64, st.integers(1, 3000), elements=st.sampled_from([0.0, 1e-300, 0.25, 0.5, 1.0, 2.0])))
def test_the_likeliest_are_the_largest_whatever_the_length_and_the_ties(weights: np.ndarray) -> None:
    found = _likeliest(weights)
    assert len(set(found.tolist())) == len(found) == min(CANDIDATES, len(weights))
    assert np.array_equal(np.sort(weights[found]), np.sort(weights)[-CANDIDATES:])
