"""Personal data: types, check digits, exact offsets, and streams that never show a part of an item."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import LOW, MEDIUM, Detector, Part
from detectors.personal import TYPES
from detectors.pii import HOLD_BACK, PiiDetector, StreamRedactor, redact
from detectors.pii import checks as check
from detectors.pii.detector import MAX_ITEMS
from detectors.pii.shapes import ENTROPIC, NUMBERS, PLATES, WORDS

CARD = "4111 1111 1111 1111"
KEY = "sk-3SZnJKSDDtGVu3f04DTL93TEanXPQxdRdJantZfRNSBzZaiN"
ITEMS = [
    ("EMAIL", "jennifer.smith+news@mail.example.org"),
    ("CN_ID", "11010519491231002X"),
    ("CN_ID", "110105 19491231 002X"),
    ("CN_ID", "350102661101456"),
    ("CREDIT_CARD", CARD),
    ("CREDIT_CARD", "5403-9843-0778-5441"),
    ("CN_BANK_CARD", "6212 2667 7802 2781 467"),
    ("IBAN", "GB82 WEST 1234 5698 7654 32"),
    ("IBAN", "DE89370400440532013000"),
    ("CN_MOBILE", "13800138000"),
    ("CN_MOBILE", "+86 138-0013-8000"),
    ("CN_LANDLINE", "010-62345678"),
    ("PHONE", "(611) 607-0322"),
    ("PHONE", "+1 536 561 8738"),
    ("PHONE", "+44 20 7303 9892"),
    ("US_SSN", "486-96-1492"),
    ("CN_PASSPORT", "EA8751730"),
    ("SECRET", KEY),
    ("SECRET", "ghp_xDwkt2TmzyXlC6uaj16AVKaFMq9ccoQeEreB"),
    ("SECRET", "AKIANHLNIDFXQI224WK5"),
    ("SECRET", "eyJhbGciOiJIUzI1NiJ9.cX_ANOVjIsF4R4krhRWDXcYplDyDYEaYDWKxo29F.IQQ7X25KtZSWrokAWpx1Sl9s"),
    ("IP", "183.227.20.19"),
    ("IP", "2a02:8109:9ec0::8a2e:370:7334"),
    ("MAC", "00-1A-2B-3C-4D-5E"),
    ("IBAN", "gb82west12345698765432"),
    ("CN_ID", "110105-19491231-002X"),
    ("CN_LANDLINE", "(010)6234-5678"),
    ("EMAIL", "jürgen.müller@bücher.example"),
    ("MAC", "33:f9:0e:90:34:db"),
    ("CN_USCC", "91350100M000100Y43"),
    ("UK_NINO", "RH 79 96 97 D"),
    ("HK_ID", "A123456(3)"),
    ("TW_ID", "A123456789"),
    ("CN_PLATE", "京A·12345"),
]
"""Published examples of each format, or numbers made up with correct check digits."""
CUED = [
    ("US_PASSPORT", "my passport number is ", "592193892"),
    ("CN_PASSPORT", "护照号码", "D29624677"),
    ("CN_HKMO_PERMIT", "港澳通行证", "M37299053"),
    ("PHONE", "please call me on ", "450 0840"),
    ("QQ", "加QQ ", "9229914931"),
    ("QQ", "扣扣号：", "9229914931"),
    ("HK_ID", "香港身份证", "A1234563"),
    ("US_SSN", "her SSN is ", "486 96 1492"),
    ("PHONE", "phone: ", "0378 3549890"),
    ("CN_PLATE", "他驾驶", "鲁ENGCEK"),
    ("SECRET", "AWS_SECRET_ACCESS_KEY=", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1"),
    ("SECRET", "api_key: ", "9f86d081884c7d659a2feaa0c55ad015"),
]
CLEAN = [
    "ISBN 978-7-395-11581-1 is out of print.",
    "Order 201208852497027941 has not arrived.",
    "Convert epoch 1752712299112 to a date.",
    "Pi is 3.14159265358979323846.",
    "The request id is e87ce653-fdf3-a639-6423-389ac950650d.",
    "Never use 996-00-0000 as a test value.",
    "Card 4111 1111 1111 1112 has a wrong check digit.",
    "身份证号110105194912310021校验位不对。",
    "Upgrade to version 5.4.30.1 today.",
    "sk-learn-is-a-python-library",
    "std::vector<a::b::c> and Foo::Bar::baz",
    "IMEI 490154203237518 is blocked",
    "Order 4111111111111111 shipped",
    "commit token hash 9f86d081884c7d659a2feaa0c55ad015",
    "Commit 6923b06465c5ef2bb2853c65efa08dd9738d7c62 broke the build.",
    "IBAN GB82 WEST 1234 5698 7654 33 is wrong.",
]


@pytest.mark.parametrize(("kind", "value"), ITEMS)
@pytest.mark.parametrize(("left", "right"), [("", ""), ("It is ", "."), ("号码：", "。"), ('{"v":"', '"}'), ("(", ")")])
def test_an_item_is_found_with_exact_offsets(kind: str, value: str, left: str, right: str) -> None:
    shown, found = redact(left + value + right)
    assert [item[:3] for item in found] == [(kind, len(left), len(left) + len(value))]
    assert shown == f"{left}[{kind}]{right}"


@pytest.mark.parametrize(("kind", "cue", "value"), CUED)
def test_an_ambiguous_number_needs_a_word_before_it(kind: str, cue: str, value: str) -> None:
    assert redact(cue + value + " ok")[0] == f"{cue}[{kind}] ok"
    assert redact("Lot " + value + " ok")[0] == "Lot " + value + " ok"


@pytest.mark.parametrize("text", CLEAN)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert redact(text) == (text, ())


def test_full_width_forms_are_read_and_offsets_stay() -> None:
    text = "电话：１３８００１３８０００，谢谢"
    assert redact(text)[0] == "电话：[CN_MOBILE]，谢谢"


@pytest.mark.parametrize("wrong", range(1, 10))
def test_check_digits_catch_every_single_wrong_digit(wrong: int) -> None:
    for test, good in ((check.luhn, "4111111111111111"), (check.cn_resident, "110105194912310021"[:17] + "X")):
        assert test(good)
        for place in range(len(good) - 1):
            turned = good[:place] + str((int(good[place]) + wrong) % 10) + good[place + 1 :]
            assert not test(turned)


def test_findings_are_recorded_not_refused() -> None:
    text = f"Card {CARD}, mail a@b.example"
    detector: Detector = PiiDetector()
    found = detector.screen([(Part("system", text), Part("user", text)), (Part("user", "hello"),)])
    assert [(f.rule, f.severity, f.turn) for f in found[0]] == [("pii.credit_card", MEDIUM, 1), ("pii.email", LOW, 1)]
    assert text[found[0][0].start : found[0][0].end] == CARD
    assert found[1] == ()


@pytest.mark.parametrize(("kind", "value"), ITEMS)
def test_the_cheap_test_before_the_patterns_passes_every_type(kind: str, value: str) -> None:
    assert [f.rule for f in PiiDetector().screen([(Part("user", value),)])[0]] == [f"pii.{kind.lower()}"]


def test_findings_of_one_part_are_bounded() -> None:
    text = " ; ".join(f"user{n}@mail.example" for n in range(100))
    assert len(PiiDetector().screen([(Part("user", text),)])[0]) == MAX_ITEMS


def stream(text: str, cuts: list[int]) -> str:
    """What a stream cut at these places shows."""
    redactor = StreamRedactor()
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    shown = [redactor.push(text[low:high]) for low, high in pairwise(places)]
    return "".join(shown) + redactor.flush()


VALUES = [value for _, value in ITEMS] + [cue + value for _, cue, value in CUED]
PIECES = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(
        [" ", "  ", "\n", ". ", ".", ",", "，", "-", "+", "(", ")", "RH ", "京", "京A", "x", " the ", "passport "]
    ),
    st.text(alphabet="0123456789 -.()+aZ@_京A:：", max_size=12),
    st.sampled_from(VALUES).flatmap(lambda v: st.integers(0, len(v)).map(lambda n: v[:n])),
    st.just("ab" * 180),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 4000), max_size=12))
def test_any_split_shows_what_the_whole_shows(text: str, cuts: list[int]) -> None:
    assert stream(text, cuts) == redact(text)[0]


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_single_characters_show_what_the_whole_shows(text: str) -> None:
    assert stream(text, list(range(len(text)))) == redact(text)[0]


@pytest.mark.parametrize("value", VALUES)
def test_every_split_of_every_item_leaks_nothing(value: str) -> None:
    text = f"see {value} and go"
    whole = redact(text)[0]
    assert value.split(" ")[-1] not in whole
    for cut in range(len(text)):
        assert stream(text, [cut]) == whole


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 4000), max_size=8), st.sets(st.sampled_from([kind for kind, _ in ITEMS])))
def test_types_that_are_off_pass_a_stream_as_they_pass_the_whole(text: str, cuts: list[int], off: set[str]) -> None:
    redactor = StreamRedactor(off)
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    shown = [redactor.push(text[low:high]) for low, high in pairwise(places)]
    assert "".join(shown) + redactor.flush() == redact(text, off)[0]
    assert off.isdisjoint(redactor.counts)


def test_every_type_that_is_found_has_a_name() -> None:
    assert {form.type for form in (*NUMBERS, *WORDS, *PLATES, *ENTROPIC)} <= TYPES


def test_ordinary_text_waits_for_its_last_word_only() -> None:
    redactor = StreamRedactor()
    assert redactor.push("The capital of France is Par") == "The capital of France is "
    assert redactor.push("is. 北京是首都。") == "Paris. 北京是首都。"


def test_what_is_held_back_is_bounded() -> None:
    for text in ["a1b" * 500, "9" * 1000, "x " * 300, "1 " * 500, "京A" * 500, "1" * 63 + " " + "1" * 500]:
        redactor, shown = StreamRedactor(), 0
        for sent, char in enumerate(text, 1):
            shown += len(redactor.push(char))
            assert sent - shown <= HOLD_BACK


def test_a_private_key_is_one_secret_over_all_its_lines() -> None:
    body = "\n".join(["MIIEpAIBAAKCAQEA7v0x3nQeabcdEFGHijkl0123abcdEFGHijkl0123abcdEFG8"] * 20) + "\nabc=="
    text = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nBye"
    whole = "-----BEGIN RSA PRIVATE KEY-----\n[SECRET]-----END RSA PRIVATE KEY-----\nBye"
    assert redact(text)[0] == whole
    for step in (1, 7, 64, 500):
        assert stream(text, list(range(0, len(text), step))) == whole


def test_an_address_longer_than_the_hold_back_is_one_item() -> None:
    text = f"from {'a' * 60}@{'b' * 30}.{'c' * 60}.example now"
    assert redact(text)[0] == "from [EMAIL] now"
    assert stream(text, list(range(len(text)))) == "from [EMAIL] now"


def test_a_secret_of_any_length_is_shown_as_one() -> None:
    redactor = StreamRedactor()
    out = [redactor.push(piece) for piece in ["key=", "sk-A1", *["b2C3d4"] * 500, ". Next"]]
    assert "".join(out) + redactor.flush() == "key=[SECRET]. Next"
    assert redactor.counts == {"SECRET": 1}
