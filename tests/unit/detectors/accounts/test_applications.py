"""Ordinary applications: the same ones on every machine, in two halves, and drawn accounts that say what they are."""

from __future__ import annotations

import itertools
import json
from collections import Counter

from detectors.accounts.applications.mixtures import DRAWN, mixtures
from detectors.accounts.applications.sessions import half_of, sessions, shapes
from detectors.accounts.labelled import labelled
from tests.honest.applications import ShapeTally, enforcing, met

PIECES = {
    name: [f"{name} {n}: one two three four five." for n in range(9)] for name in ("passage", "code", "diff", "asked")
}


def test_there_are_forty_shapes_and_more_and_neither_half_is_small() -> None:
    halves = [set(shapes(half)) for half in ("open", "closed")]
    assert len(halves[0] | halves[1]) >= 40
    assert min(map(len, halves)) >= 20
    assert not halves[0] & halves[1]
    assert {half_of(name) for name in halves[1]} == {"closed"}


def test_a_seed_gives_one_account_and_every_slot_is_filled() -> None:
    for half in ("open", "closed"):
        drawn = list(sessions(half, PIECES, 1))
        assert drawn == list(sessions(half, PIECES, 1))
        for each in drawn:
            account = json.loads(each.line)
            assert account["label"] == "benign"
            assert not any("{passage}" in event["text"] or "{n}" in event["text"] for event in account["events"])
            assert len(account["events"]) >= 40


def test_drawn_accounts_are_labelled_and_the_same_every_time() -> None:
    first = [labelled(each.line) for each in itertools.islice(mixtures(PIECES), 3)]
    assert [(one.label, one.subtype) for one in first] == [("benign", DRAWN)] * 3
    assert first[0].account == labelled(next(mixtures(PIECES)).line).account


def test_no_plan_that_ships_acts_on_an_account() -> None:
    assert enforcing() == []


def test_the_bar_is_on_all_accounts_and_on_each_shape() -> None:
    quiet, loud = ShapeTally("a", 1_000, Counter()), ShapeTally("b", 10, Counter({"x": 1}))
    assert met([quiet])
    assert not met([quiet, loud])
