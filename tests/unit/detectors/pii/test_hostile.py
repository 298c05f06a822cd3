"""Hostile texts: every pattern does bounded work per place, places are bounded by the text, any text is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from detectors.pii import StreamRedactor, addresses, cued, find, persons, persons_zh, redact, scan, shapes
from detectors.pii import secrets as keys

MODULES = (addresses, cued, persons, persons_zh, scan, shapes, keys)
SIZE = 8_000
BLOCKS = [
    "1", "9 ", "a.", "a@", "@a.", "A", "Aa ", "Aa. ", "AB 12 ", "京A", "王", "王小", "路1号", "路1号1栋", "1 Aa St ",
    "1-", "(1) ", "+1 ", "0:", "::", "ab:", "eyJ", "sk-", "key=", "a" * 31 + " ", "\u200b", "\ud800", "\udc00\ud800",
    "1 A\n", "Box 1\n ", "address is ", "my name is a ", "birth 1990-01-01 ", "微信a", "password: ",
    "private key-----\n",     "１", "Dear ", "al. ", "Rue de ", "\n \n", "1年1月", "62", "4111 ", "a-", "a_", "'", "İ",
]  # fmt: skip


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every compiled pattern of the package, those of the shapes too."""
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                yield f"{module.__name__}.{name}", value
    for form in (*shapes.NUMBERS, *shapes.WORDS, *shapes.PLATES, *shapes.ENTROPIC):
        yield form.type, form.pattern
        if form.tail is not None:
            yield f"{form.type} tail", form.tail


def repeats(tree: Any, inside: int = 1) -> Iterator[int]:
    """Of every repetition without an end that stands inside others, how often those others may repeat it."""
    for code, argument in tree:
        if code in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
            _, most, body = argument
            endless = most is op.MAXREPEAT
            if endless and inside > 1:
                yield inside
            yield from repeats(body, 1_000_000 if endless else inside * max(1, int(most)))
        elif code is op.BRANCH:
            for branch in argument[1]:
                yield from repeats(branch, inside)
        elif code in (op.SUBPATTERN, op.ATOMIC_GROUP):
            yield from repeats(argument[-1] if code is op.SUBPATTERN else argument, inside)
        elif code in (op.ASSERT, op.ASSERT_NOT):
            yield from repeats(argument[1], inside)


def test_the_measure_sees_nested_repetitions() -> None:
    assert list(repeats(parser.parse("(a+)+"))) == [1_000_000]
    assert list(repeats(parser.parse("(?:x|(a*)){0,9}"))) == [9]
    assert list(repeats(parser.parse("a+b*(c|d+)"))) == []


@pytest.mark.parametrize(("name", "pattern"), list(patterns()))
def test_no_endless_repetition_is_repeated_much(name: str, pattern: re.Pattern[str]) -> None:
    separated = {"EMAIL tail", "SECRET tail", "detectors.pii.secrets.TAIL"}  # a dot stands before each repetition
    assert name in separated or max(repeats(parser.parse(pattern.pattern)), default=0) <= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_any_text_is_answered(block: str) -> None:
    text = (block * (SIZE // len(block) + 1))[:SIZE]
    found = find(text)
    assert all(0 <= one.start < one.end <= SIZE for one in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


@pytest.mark.parametrize("block", BLOCKS)
def test_work_is_bounded_by_the_text(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places tried stay below the text's length, and no pattern reads more than MAX_ITEM behind its place."""
    tried: list[int] = []
    true = scan._item

    def counted(text: str, at: int) -> scan.Found | None:
        tried.append(at)
        found = true(text, at)
        assert found is None or found.tail is not None or found.item.end - at <= shapes.MAX_ITEM
        return found

    monkeypatch.setattr(scan, "_item", counted)
    text = (block * 1_000)[:1_000]
    redact(text)
    assert len(tried) == len(set(tried)) <= len(text)
    assert tried == sorted(tried)


@pytest.mark.parametrize("block", BLOCKS)
def test_streams_of_hostile_text_show_what_the_whole_shows(block: str) -> None:
    text = (block * 240)[:240]
    stream = StreamRedactor()
    assert "".join(stream.push(char) for char in text) + stream.flush() == redact(text)[0]


@pytest.mark.parametrize("block", ["\u200b", "x", "我们", "x y "])
def test_ten_million_characters_are_answered(block: str) -> None:
    text = block * (10_000_000 // len(block))
    assert redact(text) == (text, ())


def test_ordinary_text_is_not_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_item", lambda text, at: pytest.fail("looked at"))
    assert redact("What is the capital of France? 法国的首都是哪里？" * 50)[1] == ()
