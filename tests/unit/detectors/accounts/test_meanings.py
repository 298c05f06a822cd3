"""Every kind of alarm has words of its own, and says what to do."""

from __future__ import annotations

from detectors.accounts.meanings import MEANINGS, meaning
from detectors.accounts.rules import KINDS, NONE


def test_every_kind_has_words_and_an_advice() -> None:
    assert set(MEANINGS) == set(KINDS) - {KINDS[NONE]}
    assert all(len(words.split(". ")) == 2 for words in MEANINGS.values())
    assert len(set(MEANINGS.values())) == len(MEANINGS)


def test_a_rule_is_told_as_its_kind_and_another_as_it_is() -> None:
    assert meaning("extraction.resampling") == MEANINGS["resampling"]
    assert meaning("pii.email") == "pii.email"
    assert meaning("") == ""
