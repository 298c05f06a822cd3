"""What becomes of items: nothing of them shows, equal ones stay equal under a key, tokens pass for no real item."""

from __future__ import annotations

import re

import pytest

from detectors.pii import ACTIONS, Action, Actions, find, rewritten
from detectors.pii import checks as check
from detectors.pii.tokens import digest, token

KEY = b"k" * 32
VALUES = [
    ("CREDIT_CARD", "4111 1111 1111 1111"),
    ("CN_BANK_CARD", "6212 2667 7802 2781 467"),
    ("CN_ID", "11010519491231002X"),
    ("IBAN", "GB82 WEST 1234 5698 7654 32"),
    ("CN_USCC", "91350100M000100Y43"),
    ("HK_ID", "A123456(3)"),
    ("TW_ID", "A123456789"),
    ("US_SSN", "486-96-1492"),
    ("CN_MOBILE", "+86 138-0013-8000"),
    ("PHONE", "(611) 607-0322"),
    ("UK_NINO", "RH 79 96 97 D"),
    ("CN_PASSPORT", "EA8751730"),
    ("CN_PLATE", "京A·12345"),
    ("IP", "183.227.20.19"),
    ("MAC", "33:f9:0e:90:34:db"),
    ("EMAIL", "jennifer.smith@mail.example.org"),
    ("DATE_OF_BIRTH", "1990年1月1日"),
    ("SECRET", "ghp_xDwkt2TmzyXlC6uaj16AVKaFMq9ccoQeEreB"),
]


def form(text: str) -> str:
    """The classes of a text's characters."""
    return re.sub("[a-z]", "a", re.sub("[A-Z]", "A", re.sub("[0-9]", "0", text)))


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_token_keeps_the_form_and_is_no_such_item(kind: str, value: str) -> None:
    for key in (bytes([n]) * 16 for n in range(60)):
        made = token(value, kind, key)
        assert len(made) == len(value)
        assert made != value
        if value.isascii():
            assert form(made) == form(value)
        if kind not in ("EMAIL", "DATE_OF_BIRTH", "MAC", "IP", "PHONE", "UK_NINO", "SECRET"):
            assert (kind, 0, len(made)) not in [item[:3] for item in find(made)], made


def test_tokens_of_reserved_ranges() -> None:
    assert token("a@b.com", "EMAIL", KEY)[-3:-1] == "zz"
    assert token("RH 79 96 97 D", "UK_NINO", KEY).startswith("ZZ")
    assert token("183.227.20.19", "IP", KEY).startswith("000.")
    assert not check.luhn(re.sub(" ", "", token("4111 1111 1111 1111", "CREDIT_CARD", KEY)))


def test_equal_items_are_equal_under_one_key_only() -> None:
    assert digest("138-0013-8000", "CN_MOBILE", KEY) == digest("１３８００１３８０００", "CN_MOBILE", KEY)
    assert digest("13800138000", "CN_MOBILE", KEY) != digest("13800138000", "CN_MOBILE", b"other" * 8)
    assert digest("13800138000", "CN_MOBILE", KEY) != digest("13800138000", "PHONE", KEY)
    assert token("王小明", "PERSON", KEY) == token("王小明", "PERSON", KEY) != token("王小红", "PERSON", KEY)


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ("redact", "Pay [CREDIT_CARD] to [EMAIL]."),
        ("mask", "Pay **** **** **** 1111 to *@*.*******."),
        ("keep", "Pay 4111 1111 1111 1111 to a@b.example."),
    ],
)
def test_each_action(action: Action, shown: str) -> None:
    text = "Pay 4111 1111 1111 1111 to a@b.example."
    assert rewritten(text, find(text), Actions(action)) == shown


def test_actions_differ_by_type() -> None:
    text = "Pay 4111 1111 1111 1111 to a@b.example."
    shown = rewritten(text, find(text), Actions("redact", {"EMAIL": "hash"}, KEY))
    assert re.fullmatch(r"Pay \[CREDIT_CARD\] to \[EMAIL:[0-9a-f]{16}\]\.", shown)


def test_short_values_and_secrets_are_masked_whole() -> None:
    for text, hidden in (("Key ghp_xDwkt2TmzyXlC6uaj16AVKaFMq9ccoQeEreB", "reB"), ("QQ 12345", "2345")):
        assert hidden not in rewritten(text, find(text), Actions("mask"))


@pytest.mark.parametrize("action", [action for action in ACTIONS if action in ("hash", "token")])
def test_keyed_actions_need_a_key(action: Action) -> None:
    assert Actions(action, key=KEY).check().key == KEY
    for key in (b"", b"short"):
        with pytest.raises(ValueError, match="at least 16 bytes"):
            Actions("redact", {"EMAIL": action}, key).check()


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="got burn"):
        Actions("burn").check()  # type: ignore[arg-type]


def test_an_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"got MAIL, mail; use ADDRESS, .*, WECHAT"):
        Actions("redact", {"MAIL": "keep", "mail": "keep", "EMAIL": "mask"}).check()
