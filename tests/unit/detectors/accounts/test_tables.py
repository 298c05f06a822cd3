"""The tables of bits: every fact, cue and field once, with a meaning, and in the order that is stored."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from itertools import pairwise

import pytest

from detectors.accounts import cues, facts, features, rules
from detectors.accounts.columns import COLUMNS, COUNTS
from detectors.accounts.facts import COUNTED, FACTS, NAMES
from detectors.accounts.features import SamplingFeatures, TextFeatures, Trace
from detectors.accounts.state import FACTS_BYTES
from detectors.accounts.train import CUED, MANNERS
from detectors.packed import BitField


def test_each_fact_has_the_bit_of_its_place_a_name_and_a_meaning() -> None:
    for index, fact in enumerate(FACTS):
        assert getattr(facts, fact.name.upper()) == 1 << index
        assert fact.meaning.endswith(".")
    assert len(set(NAMES)) == len(FACTS) == 56
    assert len(FACTS) <= 8 * FACTS_BYTES


def test_the_columns_of_counts_are_those_of_the_model() -> None:
    assert [NAMES[index] for index in COUNTED] == [
        "same", "near", "similar", "edited", "edited_inside", "elicits_end", "elicits_end_weakly", "elicits_end_known",
        "elicits_start_known", "elicits_known", "makes_known", "verbatim_known", "verbatim_open", "word_salad",
        "same_resampled", "bias_new", "sampling_new", "tail_only", "returns", "gibberish",
    ]  # fmt: skip
    assert (COUNTS.start, COUNTS.stop, COLUMNS) == (112, 132, 143)


def test_the_facts_that_training_hides_exist() -> None:
    assert set(MANNERS) <= set(NAMES)
    assert all(any(name.startswith(beginning) for name in NAMES) for beginning in CUED)


def test_each_cue_is_a_table_of_words_and_phrases() -> None:
    table = tomllib.loads(files("detectors.accounts").joinpath("cues.toml").read_text("utf-8"))
    assert [*(cue.name for cue in cues.CUES), "function"] == list(table)
    for index, cue in enumerate(cues.CUES):
        assert getattr(cues, cue.name.upper()) == 1 << index
        assert cue.meaning


@pytest.mark.parametrize("fields", [features.WORDING, features.SAMPLING], ids=["wording", "sampling"])
def test_fields_follow_one_another_and_fit_a_record(fields: tuple[BitField, ...]) -> None:
    assert fields[0].offset == 0
    for field, following in pairwise(fields):
        assert field.offset + field.width == following.offset
    assert fields[-1].offset + fields[-1].width < 64
    assert all(field.meaning for field in fields)


def test_a_field_gives_back_what_was_packed_and_bounds_the_rest() -> None:
    field = BitField(3, 4, "a test")
    assert [field.unpack(field.pack(value)) for value in (-1, 0, 7, 15, 16)] == [0, 0, 7, 15, 15]
    assert field.pack(5) | field.mask == field.mask == 0b1111000
    assert features.HEAD_CUES.width == features.TAIL_CUES.width == cues.WORD_CUES.width == len(cues.CUES)


def test_a_trace_is_the_features_of_a_text_and_those_of_its_parameters() -> None:
    assert Trace._fields == TextFeatures._fields + SamplingFeatures._fields


def test_kinds_keep_the_numbers_that_accounts_hold() -> None:
    assert (rules.NONE, rules.BIAS_SWEEP, rules.TRACES, rules.CAMPAIGN) == (0, 1, 9, 11)
    assert len(rules.KINDS) == 12
