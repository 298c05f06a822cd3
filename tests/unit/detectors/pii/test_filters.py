"""What is looked at first loses nothing: the scan finds what shapes tried at every place find, words what patterns do.

Bounds are counted in work: places tried, patterns searched, characters read.
"""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.pii import (
    StreamRedactor,
    addresses,
    contextual,
    cued,
    find,
    lexicon,
    persons,
    persons_zh,
    redact,
    rewritten,
    scan,
)  # fmt: skip
from detectors.pii.item import PiiItem, plain
from detectors.pii.places import places, small_letters
from detectors.pii.shape import CONTEXT, ItemPattern
from detectors.pii.shapes import ENTROPIC, MAX_ITEM, NUMBERS, PLATES, START, WORDS
from tests.unit.detectors.pii.test_context import HITS
from tests.unit.detectors.pii.test_find import TEXTS, VALUES
from tests.unit.detectors.pii.test_hostile import BLOCKS

MARKED = [re.sub(r"<([^<>|]+)\|[A-Z_]+>", r"\1", hit) for hit in HITS]
PIECES = st.one_of(
    st.sampled_from(MARKED),
    st.sampled_from(VALUES),
    st.sampled_from(BLOCKS),
    st.sampled_from(
        [
            "Dr. ",
            "my name is ",
            "born ",
            "1990-01-01",
            " 生于",
            "微信",
            "address: ",
            "Box ",
            "\n",
            "İ",
            "\u200b",
            "\ufeff" * 5,
            "٣",
        ]
    ),
    st.sampled_from(MARKED).flatmap(lambda text: st.integers(0, len(text)).map(lambda at: text[at:])),
)
MIXED = st.lists(PIECES, max_size=6).map("".join)


def slowly(text: str) -> list[PiiItem]:
    """Structured items by trying each shape of the place at every place where START matches, without any filter."""
    found: list[PiiItem] = []
    at = 0
    while at < len(text):
        first = text[at]
        shapes = NUMBERS if first in "0123456789+(" else PLATES if first > "ɏ" else WORDS
        item = one_by_one(text, at, shapes + (() if shapes is PLATES else ENTROPIC)) if START.match(text, at) else None
        if item is not None:
            found.append(item)
        at = item.end if item else at + 1
    return found


def one_by_one(text: str, at: int, shapes: tuple[ItemPattern, ...]) -> PiiItem | None:
    before = text[max(0, at - CONTEXT) : at].lower()
    for form in shapes:
        match = form.pattern.match(text, at, at + MAX_ITEM)
        if match and (length := form.confirm(match[0], before)):
            end = at + length
            if form.tail is not None and (form.type != "EMAIL" or length == MAX_ITEM):
                tail = form.tail.match(text, end)
                end = tail.end() if tail else end
            return PiiItem(form.type, at, end, form.score)
    return None


@settings(max_examples=300, deadline=None)
@given(st.one_of(TEXTS, MIXED))
def test_the_scan_finds_what_every_place_gives(text: str) -> None:
    read = plain(text)
    assert list(scan.items(read)) == slowly(read)


@pytest.mark.parametrize("value", VALUES)
def test_the_scan_finds_each_item_that_every_place_gives(value: str) -> None:
    for text in (value, f"see {value}.", f"（{value}）", f"a-{value}-b {value}"):
        assert list(scan.items(plain(text))) == slowly(plain(text))


@settings(max_examples=200, deadline=None)
@given(MIXED)
def test_small_letters_keep_every_place(text: str) -> None:
    low = small_letters(text)
    assert len(low) == len(text)
    for kind in places(low):
        assert all(0 <= start < end <= len(low) for start, end in kind)
        assert [end for _, end in kind] == sorted(end for _, end in kind)


def test_places_are_those_of_each_word_in_any_case() -> None:
    found = places(small_letters("İ My Name Is ann, DOB 1990, 微信 PassWord: x. Live At 5 Elm"))
    assert [len(kind) for kind in found] == [1, 1, 0, 1, 1, 1, 0, 0]
    assert found.small_name == [(2, 13)]


@settings(max_examples=200, deadline=None)
@given(MIXED)
def test_all_items_lie_in_order_and_nothing_of_them_is_left(text: str) -> None:
    found = find(text)
    assert all(0 <= item.start < item.end <= len(text) for item in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    kept = sum(len(text[item.start : item.end]) for item in found)
    assert len(rewritten(text, found)) == len(text) - kept + sum(len(item.type) + 2 for item in found)


@settings(max_examples=100, deadline=None)
@given(MIXED, st.lists(st.integers(0, 2000), max_size=8))
def test_streams_of_mixed_text_show_what_the_whole_shows(text: str, cuts: list[int]) -> None:
    stream = StreamRedactor()
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    shown = "".join(stream.push(text[low:high]) for low, high in pairwise(at)) + stream.flush()
    assert shown == redact(text)[0]


@pytest.mark.parametrize("value", VALUES)
def test_a_stream_of_bytes_cut_anywhere_leaks_nothing(value: str) -> None:
    """As a gateway decodes: a piece of UTF-8 may end inside a character."""
    text = f"见 {value} é"
    whole, raw = redact(text)[0], text.encode()
    for cut in range(len(raw) + 1):
        decoder, stream = getincrementaldecoder("utf-8")(), StreamRedactor()
        shown = stream.push(decoder.decode(raw[:cut])) + stream.push(decoder.decode(raw[cut:], final=True))
        assert shown + stream.flush() == whole


@pytest.mark.parametrize("block", ["\u200b", "\ud800", "王a１", "", "\u202e", "Ａ", "йA王"])
def test_hostile_text_costs_a_bounded_number_of_looks(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognisers run once per text, and the shapes are tried at no place twice, whatever the text is."""
    tried: list[int] = []
    true = scan._item

    def tried_once(text: str, at: int) -> scan.Found | None:
        tried.append(at)
        return true(text, at)

    monkeypatch.setattr(scan, "_item", tried_once)
    calls = dict.fromkeys(("addresses", "cued", "persons", "persons_zh"), 0)
    for name, module in zip(calls, (addresses, cued, persons, persons_zh), strict=True):
        act = getattr(module, name)

        def counted(*given: object, name: str = name, act: object = act) -> object:
            calls[name] += 1
            return act(*given)  # type: ignore[operator]

        monkeypatch.setattr(contextual, name, counted)
    text = block * 4_000
    find(text)
    assert len(tried) == len(set(tried)) <= len(text)
    assert max(calls.values()) == 1


@pytest.mark.parametrize(("block", "size"), [("\u200b", 10_000_000), ("\ud800", 1_000_000), ("我们", 1_000_000)])
def test_millions_of_characters_are_read_for_names_too(block: str, size: int) -> None:
    assert find(block * (size // len(block))) == ()


@pytest.mark.parametrize("file", sorted(Path(lexicon.__file__).parent.glob("*.txt")), ids=lambda file: file.name)
def test_every_list_says_its_source_and_its_licence(file: Path) -> None:
    head = [line for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
    assert any("Source: " in line for line in head)
    assert any("Licence: " in line for line in head)
    if any("MIT" in line for line in head):
        assert "Copyright (c)" in (file.parent / "LICENSE-Faker").read_text("utf-8")
