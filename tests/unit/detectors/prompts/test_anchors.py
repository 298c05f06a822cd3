"""The anchor index finds exactly what a plain search finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.prompts.anchors import AnchorIndex

WORDS = st.text(alphabet="abé忽略\U0001f600 ", min_size=1, max_size=7)


@given(st.lists(WORDS, max_size=8, unique=True), st.text(alphabet="abé忽略\U0001f600 ", max_size=60))
def test_every_occurrence_is_found_in_order(anchors: list[str], text: str) -> None:
    found = AnchorIndex({anchor: (number,) for number, anchor in enumerate(anchors)}).find(text)
    expected = [
        (at + len(anchor) - 1, (number,))
        for number, anchor in enumerate(anchors)
        for at in range(len(text))
        if text.startswith(anchor, at)
    ]
    assert found == sorted(expected)
