"""Names and addresses in a stream: out of it they are, however it is cut, and what waits is bounded."""

from __future__ import annotations

from codecs import getincrementaldecoder
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Part
from detectors.pii import (
    HOLD_BACK,
    HOLD_BACK_SENTENCES,
    REDACT,
    PiiDetector,
    SentenceRedactor,
    StreamRedactor,
    find,
    redact,
    rewritten,
)
from detectors.pii.item import MAX_HIDDEN
from detectors.pii.sentences import LONGEST

SECRETS = {
    "I asked Dr. Jane Smith about it. She was kind.": "Smith",
    "The singer is Mary J. Blige. You know her.": "Blige",
    "Send it to 1420 Maple Avenue, Springfield, IL 62704. Thank you!": "Maple",
    "He was born on 12 March 1984 in Leeds. That is all.": "1984",
    "联系人：王小明，电话 13800138000。请尽快联系他。": "小明",
    "收货地址是北京市朝阳区建国路88号3号楼201室，麻烦了。": "建国路",
    "她的微信号是 xiaoming_2020，可以加她。出生日期：1990年5月6日。": "xiaoming_2020",
    "我的QQ号是 123456789，护照号 E12345678。": "123456789",
}
PIECES = st.lists(
    st.sampled_from(
        [*SECRETS, "No end of it ", "ordinary words. ", "\n", "。", "Anna ", "a1", "\ud83d", "é", "x" * 300]
    ),
    max_size=8,
)


def streamed(pieces: list[str]) -> str:
    redactor = SentenceRedactor()
    return "".join([redactor.push(piece) for piece in pieces]) + redactor.flush()


@pytest.mark.parametrize("text", SECRETS)
def test_nothing_leaks_at_any_character_or_byte(text: str) -> None:
    whole = rewritten(text, find(text), REDACT)
    assert SECRETS[text] not in whole
    assert streamed(list(text)) == whole
    for cut in range(len(text) + 1):
        assert streamed([text[:cut], text[cut:]]) == whole
    raw = text.encode()
    for cut in range(len(raw) + 1):
        decoder = getincrementaldecoder("utf-8")()
        assert streamed([decoder.decode(raw[:cut]), decoder.decode(raw[cut:], final=True)]) == whole


@settings(max_examples=100, deadline=None)
@given(PIECES, st.lists(st.integers(0, 4000), max_size=8))
def test_however_a_text_is_cut_the_same_comes_out(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    shown = streamed([text[low:high] for low, high in pairwise(at)])
    assert shown == streamed([text]) == streamed(list(text))
    assert not any(secret in shown for secret in SECRETS.values())


@pytest.mark.parametrize("unit", ["word ", "字", "a", "Anna Smith ", "1 ", "王小明", ". ", "x\n"])
def test_what_waits_is_bounded(unit: str) -> None:
    redactor, given_, shown, marks = SentenceRedactor(), 0, 0, 0
    for _ in range(4_000 // len(unit)):
        given_ += len(unit)
        left = redactor.push(unit)
        marks += left.count("[")
        shown += len(left)
        if not marks:
            assert given_ - shown <= HOLD_BACK_SENTENCES
    assert LONGEST < HOLD_BACK_SENTENCES < 1_000
    redactor.flush()


def test_ordinary_text_is_unchanged_and_leaves_by_the_sentence() -> None:
    redactor = SentenceRedactor()
    assert redactor.push("The weather is fine. It will") == ""
    assert redactor.push(" stay so. And") == "The weather is "
    assert redactor.flush() == "fine. It will stay so. And"
    assert redactor.counts == {}


def test_items_are_counted_by_type() -> None:
    redactor = SentenceRedactor()
    redactor.push("Ask Dr. Jane Smith, jane@mail.example. Or ask Dr. John Miller.")
    redactor.flush()
    assert redactor.counts == {"PERSON": 2, "EMAIL": 1}


SCATTERED = (
    "4111{0}1111{0}1111{0}1111",
    "1{0}3{0}8{0}0{0}0{0}1{0}3{0}8{0}0{0}0{0}0",
    "bo@exa{0}mple.org",
    "AKIAIOSF{0}ODNN7EXAMPLE",
)


@pytest.mark.parametrize("hidden", ["\u200b", "\u00ad", "\u2060\ufeff", "\u200b" * MAX_HIDDEN])
@pytest.mark.parametrize("form", SCATTERED)
def test_what_shows_nothing_hides_nothing_either(form: str, hidden: str) -> None:
    value = form.format(hidden)
    text = f"see {value} \u200bthere\u200b."
    (item,) = find(text, contextual=False)
    assert text[item.start : item.end] == value
    assert redact(text)[0] == f"see [{item.type}] \u200bthere\u200b."
    for cut in range(len(text) + 1):
        stream = StreamRedactor()
        assert stream.push(text[:cut]) + stream.push(text[cut:]) + stream.flush() == redact(text)[0]
    stream = StreamRedactor()
    assert "".join([stream.push(char) for char in text]) + stream.flush() == redact(text)[0]
    assert PiiDetector().screen([(Part("user", text),)])[0][0].end == item.end


def test_a_flood_of_what_shows_nothing_does_not_wait() -> None:
    stream, left = StreamRedactor(), 0
    for given_ in range(1, 3_000):
        left += len(stream.push("4" if given_ % 7 == 0 else "\u200b"))
        assert given_ - left <= (MAX_HIDDEN + 1) * HOLD_BACK


@pytest.mark.parametrize("zero", ["\u0660", "\u06f0", "\u0966", "\U0001d7d8", "\U0001d7f6", "\uff10"])
@pytest.mark.parametrize("around", ["{}", "{}" + " 字" * 300])
def test_digits_of_any_script_make_a_number(zero: str, around: str) -> None:
    number = "".join(chr(ord(zero) + int(digit)) for digit in "13800138000")
    assert redact(around.format(number))[0] == around.format("[CN_MOBILE]")
