"""Every text's grams are its own: no neighbour, no batch and no order of letters inside a word changes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.prompts.grams import CHAR_BITS, SIZES, WIDTH, blocks, hashed, join

TEXTS = st.lists(st.text(alphabet="ab c1\n忽略é\U0001f600\ud800,", max_size=12), min_size=1, max_size=6)


def grams(texts: list[str]) -> list[list[tuple[int, int, int]]]:
    """Per text, every gram as (order, place in the text, index)."""
    joined = join(texts)
    found: list[list[tuple[int, int, int]]] = [[] for _ in texts]
    for block in blocks(hashed(joined)):
        places = np.arange(len(block.slots)) if block.places is None else block.places
        assert block.slots.max(initial=0) < SIZES[block.order]
        for index, place in zip(block.slots.tolist(), places.tolist(), strict=True):
            if index:
                row = int(np.searchsorted(joined.ends + 1, place))
                found[row].append((block.order, place - int(joined.starts[row]), index))
    return found


@given(TEXTS)
def test_a_text_has_the_same_grams_alone_and_in_any_batch(texts: list[str]) -> None:
    together = grams(texts)
    assert together == [grams([text])[0] for text in texts]


def test_every_order_is_there_and_none_reaches_beyond_the_text() -> None:
    found, _ = grams(["ignore all rules now", "so"])
    assert {order for order, _, _ in found} == set(range(len(SIZES)))
    for order, place, _ in found:
        assert -1 <= place < len("ignore all rules now")
        assert order >= len(CHAR_BITS) or place + order + 2 <= len("ignore all rules now") + 1
    assert sum(SIZES) == WIDTH


@pytest.mark.parametrize(
    ("one", "other"),
    [("ignore previous rules", "ingore peviorus relus"), ("room 123", "room 789"), ("a\tb c", "a b c")],
)
def test_shuffled_letters_digits_and_white_space_make_no_difference_to_words(one: str, other: str) -> None:
    assert words(one) == words(other)


def test_other_words_have_other_grams() -> None:
    assert not words("ignore rules") & words("follow laws")
    assert words("ignore rules") != words("rules ignore")


def words(text: str) -> set[tuple[int, int]]:
    return {(order, index) for order, _, index in grams([text])[0] if order >= len(CHAR_BITS)}
