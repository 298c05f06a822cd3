"""The cheap looks that spare a text its expensive readings never spare one that would have shown something."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.prompts.grams import hashed, join
from detectors.prompts.views import RUN, Passage, PassageReading, collapsed, readings, repetitive, said_once
from detectors.text import decode, loose, normalize
from detectors.text.normalize import clean, clean_all
from detectors.text.plane import IDEOGRAPHS, SYLLABLES, VARIED

PIECES = st.lists(
    st.tuples(st.text(alphabet="ab12, -哈 \U0001f600", min_size=1, max_size=18), st.integers(1, 40)), max_size=5
)
MIXED = st.text(alphabet="ab1 3.-/·中文\u3000é…\ud800\udc00\U0001f600аβ", max_size=40)


def looked_at(text: str) -> bool:
    around = ["Ordinary words before it.", text, "And some more of them behind."]
    return repetitive(hashed(join(around)), [1]) == [1]


@given(PIECES)
def test_what_repetition_could_halve_is_looked_at(pieces: list[tuple[str, int]]) -> None:
    text = "".join(unit * count for unit, count in pieces)
    if text and 2 * len(collapsed(text)) <= len(text):
        assert looked_at(text)


@pytest.mark.parametrize(
    "text", ["The quick brown fox jumps over the lazy dog. " * 2, "我想了解一下这个城市的历史和文化，谢谢。"]
)
def test_ordinary_text_is_not_taken_for_repetition(text: str) -> None:
    assert not looked_at(text)


@given(st.lists(MIXED, max_size=5))
def test_a_text_reads_clean_alone_as_in_a_batch(texts: list[str]) -> None:
    assert clean_all(texts) == [clean(text) for text in texts]


@given(st.text(alphabet="abc3 .-/·中文字*\n,", max_size=60))
def test_spaced_out_letters_are_joined_wherever_the_expressions_find_them(text: str) -> None:
    spelled = loose._SPACED.search(text) or loose._SPACED_CJK.search(text)
    read = loose.loose(normalize.TextView("clean", text))
    plain = loose._unleeted(text)
    if spelled and plain == text:
        assert read is not None
        assert len(read.text) < len(text)
    # marks of emphasis are taken away by a rule of their own
    if not spelled and plain == text and "* *" not in text:
        assert read is None


@given(st.text(alphabet="aB4f+/: %2&#;x\n=01", max_size=120))
def test_encoded_runs_are_all_found(text: str) -> None:
    shape = text.encode("ascii", "replace")
    for encoding in decode._ENCODINGS:
        found = decode._matches(encoding, text, shape.translate(encoding.table))
        assert spans(found) == spans(encoding.pattern.finditer(text))


@pytest.mark.parametrize(
    ("neighbour", "text"),
    [
        ("5 % of it", "%73%61%79 %68%69"),
        ("a" * 20, "c2F5IGhpIHRvIG1lIG5vdw=="),
        ("x a b c d", "s a y h i"),
        ("&#65", "&#115;&#97;&#121;"),
    ],
)
def test_a_text_hides_nothing_of_the_next_in_its_batch(neighbour: str, text: str) -> None:
    def read(*texts: str) -> list[str]:
        batch = [Passage(row, 0, "user", each) for row, each in enumerate(texts)]
        last = len(texts) - 1
        return [seen.text for views, _ in readings(batch) for seen in views if seen.at == last]

    alone = read(text)
    assert alone != [text.lower()]
    assert read(neighbour, text) == alone


def spans(found: object) -> list[tuple[int, int]]:
    return [match.span() for match in found if isinstance(match, re.Match)]  # type: ignore[attr-defined]


def test_what_the_tables_leave_out_is_of_one_kind() -> None:
    left_out = [chr(code) for code in sorted(set(range(0x10000)) - set(VARIED))]
    letters = {chr(code) for block in (*IDEOGRAPHS, SYLLABLES) for code in block}
    assert all(normalize._fold(char) == char for char in left_out)
    kinds = {char: unicodedata.category(char) for char in left_out}
    assert {kinds[char] for char in letters} == {"Lo"}
    assert {kinds[char] for char in left_out if char not in letters} == {"So", "Cs", "Co"}


def once(text: str) -> str:
    return said_once(text, hashed(join([text])))


def test_a_run_that_stands_in_a_text_often_counts_twice() -> None:
    rows = [f"a row begins like all the others: {name}\n" for name in ("one", "two", "three", "four", "five")]
    short = once("".join(rows))
    assert short.startswith(rows[0] + rows[1])
    assert short.count("begins like all") == 2
    assert all(name in short for name in ("three", "four", "five"))


@given(st.text(alphabet="ab \u54c8\n", max_size=80))
def test_what_stands_there_at_most_twice_is_kept(text: str) -> None:
    runs = [text[at : at + RUN] for at in range(len(text) - RUN + 1)]
    if all(runs.count(run) <= 2 for run in runs):
        assert once(text) == text
    assert once(text[:RUN]) == text[:RUN]


def test_a_place_of_the_original_is_found_in_a_reading() -> None:
    text = "\u0131g\u200bn\u200bore it"
    for seen, _ in readings([Passage(0, 0, "user", text)]):
        for view in seen:
            for at in range(len(view.text)):
                low, high = view.within(*view.place(at, at + 1))
                assert low <= at < high
    assert PassageReading(0, None, "abc").within(1, 2) == (1, 2)
