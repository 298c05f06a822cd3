"""Fingerprints: every copied passage of the guaranteed length is found; others are not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.watermark.winnow import GRAM, GUARANTEE, MAX_KEPT, MAX_TEXT, FingerprintIndex, Winnower, normalised

KEY = b"k" * 32
LETTERS = "abcdefghijklmnopqrstuvwxyzäß中文字"


def noise(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(LETTERS) for _ in range(count))


def test_the_fingerprints_of_a_record_find_a_copy_without_the_text() -> None:
    delivered, index = noise(1, 4000), FingerprintIndex(None, KEY)
    packed = Winnower(KEY).packed(delivered)
    assert index.add_packed("acme", "r1", packed) == len(packed) // 8
    assert index.add_packed("acme", "r1", packed) == 0
    (found,) = index.find("they say " + delivered[700:800].upper())
    assert (found.tenant, found.name) == ("acme", "r1")
    assert index.find(noise(2, 400)) == []
    with pytest.raises(ValueError):
        index.add_packed("acme", "r2", packed[:-1])
    index.close()


def test_the_fingerprints_of_a_record_are_bounded() -> None:
    assert len(Winnower(KEY).packed(noise(3, 40_000))) == 8 * MAX_KEPT
    assert Winnower(KEY).packed("") == b""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 200), st.integers(0, 300), st.integers(0, 300))
def test_any_passage_of_the_guaranteed_length_is_found(seed: int, at: int, before: int, after: int) -> None:
    delivered = noise(seed, 400)
    # letters that grow or shrink in folding are not cut in half by a copy
    passage = delivered[at : at + GUARANTEE]
    suspect = noise(seed + 1, before) + " " + passage + " " + noise(seed + 2, after)
    index = FingerprintIndex(None, KEY)
    index.add("acme", "r1", delivered)
    (found,) = index.find(suspect)
    assert (found.tenant, found.name) == ("acme", "r1")
    assert found.start < before + 1 + len(passage)
    assert found.end > before + 1
    # the letters beside it may happen to go on as in the original; one that folds to two may be half of it
    assert normalised(suspect[found.start : found.end])[0][2:-2] in normalised(delivered)[0]
    index.close()


def test_case_space_and_punctuation_hide_nothing_but_other_text_is_not_found() -> None:
    text = "A dog is a member of the genus Canis that has been domesticated by man since prehistoric times."
    index = FingerprintIndex(None, KEY)
    kept = index.add("acme", "r1", text)
    assert index.add("acme", "r1", text) == 0
    (found,) = index.find(text.upper().replace(" ", " - "))
    assert found.shared == kept
    assert found.share == 1.0
    assert index.find("A cat is a feline mammal that usually has thick soft fur and no ability to roar at all.") == []
    assert index.find("too short") == []
    assert index.find(text, least=kept + 1) == []


def test_the_fuller_match_comes_first_and_the_file_lasts(tmp_path: Path) -> None:
    whole = noise(1, 600)
    first = FingerprintIndex(tmp_path / "prints", KEY)
    first.add("a", "half", whole[:300] + noise(2, 300))
    first.add("b", "whole", whole)
    first.close()
    again = FingerprintIndex(tmp_path / "prints", KEY)
    assert [found.name for found in again.find(whole)] == ["whole", "half"]
    again.close()
    assert whole[:40].encode() not in (tmp_path / "prints").read_bytes()
    other = FingerprintIndex(tmp_path / "prints", b"another key")
    assert other.find(whole) == []
    other.close()


def test_few_fingerprints_stand_for_much_text() -> None:
    hashes, starts, ends = Winnower(KEY).fingerprints(noise(3, 5000))
    # expected density 2 / (window + 1)
    assert 0.07 < len(hashes) / 5000 < 0.115
    assert (ends - starts >= GRAM // 2).all()
    with pytest.raises(ValueError, match="at most"):
        Winnower(KEY).fingerprints("x" * (MAX_TEXT + 1))


def test_letters_keep_the_place_they_came_from() -> None:
    letters, origins = normalised("Ab, ﬁß!")
    assert letters == "abfiss"
    assert origins.tolist() == [0, 1, 4, 4, 5, 5]
