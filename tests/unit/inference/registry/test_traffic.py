"""Shares of traffic by request id."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.registry.refusal import ModelRefused
from inference.registry.traffic import WHOLE, choose, without

REQUESTS = [f"g1-0-{number}" for number in range(20_000)]


def test_shares_are_what_was_asked_for() -> None:
    shares = {1: 7000, 2: 2500, 3: 500}
    found = [choose(shares, "m", request) for request in REQUESTS]
    for version, share in shares.items():
        # five standard deviations of a binomial count
        slack = 5 * (len(REQUESTS) * share / WHOLE * (1 - share / WHOLE)) ** 0.5
        assert abs(found.count(version) - len(REQUESTS) * share / WHOLE) < slack


def test_a_request_stays_on_the_latest_while_its_share_grows() -> None:
    before = {request: choose({1: 9000, 2: 1000}, "m", request) for request in REQUESTS}
    after = {request: choose({1: 4000, 2: 6000}, "m", request) for request in REQUESTS}
    assert all(after[request] == 2 for request, version in before.items() if version == 2)


def test_models_draw_apart() -> None:
    shares = {1: 5000, 2: 5000}
    same = sum(choose(shares, "a", request) == choose(shares, "b", request) for request in REQUESTS)
    assert 0.45 < same / len(REQUESTS) < 0.55


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40), st.dictionaries(st.integers(1, 9), st.integers(1, 99), min_size=1, max_size=5))
def test_any_request_has_a_version_and_always_the_same(request: str, drawn: dict[int, int]) -> None:
    shares = dict(drawn)
    shares[max(shares)] += WHOLE - sum(shares.values())
    assert choose(shares, "m", request) == choose(dict(reversed(shares.items())), "m", request) in shares


@pytest.mark.parametrize("shares", [{}, {1: 9999}, {1: WHOLE, 2: 0}, {1: WHOLE + 1, 2: -1}])
def test_other_shares_are_refused(shares: dict[int, int]) -> None:
    with pytest.raises(ModelRefused):
        choose(shares, "m", "r")


def test_what_a_removed_version_had_goes_to_the_latest() -> None:
    assert without({1: 6000, 2: 3000, 3: 1000}, 1) == {2: 3000, 3: 7000}
    assert without({1: WHOLE}, 1) == {}
