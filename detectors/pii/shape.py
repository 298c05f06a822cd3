"""The form of a recogniser of structured items: a pattern for the candidate and a test that confirms it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from detectors.pii.item import SURE

_NOT_DIGIT = re.compile("[^0-9]+")
CONTEXT = 40
"""Code points before a candidate that its test may look at."""
END = r"(?![A-Za-z0-9]|_[A-Za-z0-9]|\.[0-9])"
"""Behind a number: no more of it, of an identifier or of a decimal fraction."""
JOINED = re.compile(r"(?:[0-9a-z]_|\+|[0-9]\.|[0-9]-|[0-9a-f]{4}-)$")
"""Before a number that is a part of an identifier, a decimal fraction or a longer number."""
KEYED = re.compile(r"(?:[a-z0-9_]=|[\"'] ?: ?)$")
"""Before a bare number that is the value of a key, as logs and JSON have it."""
OTHER_NUMBER = re.compile(
    r"invoice|reference|\bref\b|order|ticket|tracking|serial|isbn|epoch|imei|\bpart\b|model|sku|batch|transaction"
    r"|sample|bytes|\bsize|offset|\bseed|\bu?guid|uuid|hash|订单|流水|编号|单号|发票号|序列号|编码|型号|批号|批次|合同号|时间戳|样本"
    r"|工单"
)
"""Words for numbers of another kind."""
Confirm = Callable[[str, str], int]
"""Candidate and the text before it, in small letters -> how many of its characters belong to the item; 0: none."""


def sure(candidate: str, before: str) -> int:
    """Confirms every match of the pattern."""
    return len(candidate)


class ItemPattern(NamedTuple):
    """One format. `tail` says how an item goes on after what the pattern recognises, without bound."""

    type: str
    pattern: re.Pattern[str]
    confirm: Confirm = sure
    score: int = SURE
    tail: re.Pattern[str] | None = None


def shape(kind: str, pattern: str, confirm: Confirm = sure, score: int = SURE) -> ItemPattern:
    return ItemPattern(kind, re.compile(pattern), confirm, score)


def near(words: str, within: int = CONTEXT) -> Confirm:
    """Confirms where one of the words stands shortly before."""
    cue = re.compile(words)
    return lambda candidate, before: len(candidate) if cue.search(before[-within:]) else 0


def checked(test: Callable[[str], bool]) -> Confirm:
    """Confirms what passes the test once its separators are gone."""
    return lambda candidate, before: len(candidate) if test(re.sub(r"[ ()\-]", "", candidate)) else 0


def digits_of(candidate: str) -> str:
    return _NOT_DIGIT.sub("", candidate)
