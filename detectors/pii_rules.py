"""Structured personal data: where an item can start, what it looks like and what confirms it.

An item is decided by the text from CONTEXT characters before it to its end and one character more, so a stream needs
to hold back only what may still grow into an item (`pii.StreamRedactor`). Limits that this rests on: no item but a
secret is longer than MAX_ITEM, none that holds a space is longer than MAX_SPACED, and a space in an item stands
alone, after a word with a digit, two capitals or a plate's province, between words without small letters.
Types are named as in the project's detection data. Names and addresses are not found by rules.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from detectors import pii_checks as check
from detectors.normalize import from_utf16, utf16

CONTEXT = 40
MAX_SPACED = 64
MAX_ITEM = 352
SECRET = "SECRET"  # noqa: S105 - a type's name, no secret
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
TAIL = re.compile(r"[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*")
"""How a secret goes on after the part that was recognised, without bound."""
_NARROW = np.arange(0x10000, dtype=np.uint16)
_NARROW[0xFF01:0xFF5F] -= 0xFEE0
_NARROW[0x3000] = 0x20

Confirm = Callable[[str, str], int]
"""Candidate and the text before it -> how many of the candidate's characters belong to the item; 0: none."""


class Item(NamedTuple):
    """One item: type as in the detection data, half-open range of code points of the original text."""

    type: str
    start: int
    end: int


class _Shape(NamedTuple):
    type: str
    pattern: re.Pattern[str]
    confirm: Confirm


def plain(text: str) -> str:
    """The text with full-width forms as ASCII; character for character, so offsets stay."""
    return text if text.isascii() else from_utf16(_NARROW[utf16(text)])


def items(text: str, start: int = 0, tries: int = sys.maxsize) -> Iterator[Item]:
    """Items of a `plain` text that start at or after `start`, in order, without overlap; `tries` places are tried."""
    at = start
    while (found := _START.search(text, at)) is not None and tries > 0:
        tries -= 1
        at = found.start()
        before = text[max(0, at - CONTEXT) : at].lower()
        for shape in _shapes(text[at]):
            match = shape.pattern.match(text, at)
            if match is not None and (length := shape.confirm(match[0], before)):
                yield Item(shape.type, at, at + length)
                at += length
                break
        else:
            at += 1


def _shapes(first: str) -> tuple[_Shape, ...]:
    if first in "0123456789+(":
        return _NUMBERS
    return _PLATES if first > "\x7f" else _WORDS


def _sure(candidate: str, before: str) -> int:
    return len(candidate)


def _digits(candidate: str) -> str:
    return "".join(char for char in candidate if "0" <= char <= "9")


def _near(words: str, within: int = CONTEXT) -> Confirm:
    """Confirms where one of the words stands shortly before."""
    cue = re.compile(words)
    return lambda candidate, before: len(candidate) if cue.search(before[-within:]) else 0


def _checked(test: Callable[[str], bool]) -> Confirm:
    """Confirms what passes the test once its separators are gone."""
    return lambda candidate, before: len(candidate) if test(re.sub(r"[ ()\-]", "", candidate)) else 0


def _iban(candidate: str, before: str) -> int:
    left = check.iban_length(candidate.replace(" ", ""))
    for at, char in enumerate(candidate):
        left -= char != " "
        if not left and char != " ":
            whole = at + 1 == len(candidate) or candidate[at + 1] == " "
            return at + 1 if whole else 0
    return 0


_OTHER_NUMBER = re.compile(
    r"invoice|reference|order|ticket|tracking|serial|isbn|epoch|订单|流水|编号|单号|发票号|序列号"
)


_CARD = re.compile(r"card|\bcc\b|visa|卡")


def _card(chinese: bool) -> Confirm:
    def confirm(candidate: str, before: str) -> int:
        digits = _digits(candidate)
        if digits.startswith(("62", "436742")) is not chinese or not check.luhn(digits):
            return 0
        if len(digits) == 15 and not digits.startswith(("34", "37", "2131", "1800")):
            return 0
        if len(digits) < 14 and not _CARD.search(before):
            return 0
        return 0 if _OTHER_NUMBER.search(before[-24:]) else len(candidate)

    return confirm


def _uscc(candidate: str, before: str) -> int:
    told = not candidate.isdigit() or re.search("信用代码|税号", before)
    return len(candidate) if told and check.uscc(candidate) else 0


def _plate(candidate: str, before: str) -> int:
    told = any(char.isdigit() or char == "·" for char in candidate) or re.search("车|牌", before)
    return len(candidate) if told else 0


def _ip(candidate: str, before: str) -> int:
    valid = all(int(part) <= 255 and (part == "0" or part[0] != "0") for part in candidate.split("."))
    return len(candidate) if valid and not re.search(r"(?:version|版本|release|v)[ :]?$", before) else 0


def _landline(candidate: str, before: str) -> int:
    split = not candidate.isdigit() or _CALL.search(before)
    return len(candidate) if split and not _OTHER_NUMBER.search(before[-8:]) else 0


def _phone(candidate: str, before: str) -> int:
    return len(candidate) if 7 <= len(_digits(candidate)) <= 15 else 0


def _called(candidate: str, before: str) -> int:
    return _phone(candidate, before) if _CALL.search(before[-24:]) else 0


def _secret(candidate: str, before: str) -> int:
    """Words joined by hyphens after `sk-` are no key: a key has a digit or a capital early on."""
    head = candidate[3:24]
    return len(candidate) if head != head.lower() or any(char.isdigit() for char in head) else 0


_CALL = re.compile(
    r"phone|call|\btel|mobile|contact|whatsapp|\bfax|not answering at|电话|手机|联系|致电|座机|传真|热线"
)
_END = r"(?![A-Za-z0-9])"


def _shape(kind: str, pattern: str, confirm: Confirm = _sure) -> _Shape:
    return _Shape(kind, re.compile(pattern), confirm)


_EMAIL = _shape(
    "EMAIL", r"[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,4}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_MAC = _shape("MAC", r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![A-Za-z0-9:])")
_IPV6 = _shape("IP", r"(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![A-Za-z0-9:])")
_USCC = _shape("CN_USCC", rf"[0-9A-HJ-NPQRTUWXY]{{2}}\d{{6}}[0-9A-HJ-NPQRTUWXY]{{10}}{_END}", _uscc)
_PASSPORT = r"passport|护照"
_NUMBERS = (
    _EMAIL,
    _shape("IP", r"(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)", _ip),
    _MAC,
    _IPV6,
    _shape("CN_ID", rf"[1-9]\d{{5}} ?\d{{8}} ?\d{{3}}[0-9Xx]{_END}", _checked(check.cn_resident)),
    _USCC,
    _shape("CN_BANK_CARD", rf"\d(?:[ -]?\d){{15,18}}{_END}", _card(chinese=True)),
    _shape("CREDIT_CARD", rf"(?:3[04-9]|4|5|6|2[1-7]|18)(?:[ -]?\d){{10,18}}{_END}", _card(chinese=False)),
    _shape("CN_ID", rf"[1-8]\d{{14}}{_END}", _checked(check.cn_resident)),
    _shape("CN_MOBILE", rf"(?:\((?:\+|00)?86\)[ -]?|(?:\+|00)?86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_END}"),
    _shape("US_SSN", rf"(?!000|666|9)\d{{3}}-(?!00)\d\d-(?!0000)\d{{4}}{_END}"),
    _shape("CN_LANDLINE", rf"(?:\(0(?:10|2\d|[3-9]\d\d)\)|0(?:10|2\d|[3-9]\d\d))[ -]?[2-8]\d{{6,7}}{_END}", _landline),
    _shape("PHONE", rf"\+?1[ .-]?(?:\([2-9]\d\d\)|[2-9]\d\d)[ .-]?\d{{3}}[ .-]?\d{{4}}{_END}", _phone),
    _shape("PHONE", rf"(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[.-])\d{{3}}[.-]\d{{4}}{_END}"),
    _shape("PHONE", rf"\+[1-9]\d{{0,2}}(?:[ .-]?(?:\(\d{{1,4}}\)|\d{{1,4}})){{2,5}}{_END}", _phone),
    _shape("US_PASSPORT", rf"\d{{9}}{_END}", _near(_PASSPORT)),
    _shape("QQ", rf"[1-9]\d{{4,10}}{_END}", _near(r"qq(?:号码?|群|号)?(?: ?[:：是为]| )? ?$")),
    _shape("PHONE", rf"(?:\(\d{{2,5}}\)|\d{{2,5}})(?:[ .-]\d{{2,4}}){{1,4}}{_END}", _called),
)
_WORDS = (
    _EMAIL,
    _shape(
        SECRET,
        r"(?:sk[-_][A-Za-z0-9_-]{16}|rk_live_[A-Za-z0-9]{16}|gh[oprsu]_[A-Za-z0-9]{20}|github_pat_[A-Za-z0-9_]{20}"
        r"|glpat-[A-Za-z0-9_-]{20}|xox[abeprs]-[A-Za-z0-9-]{12}|A[KS]IA[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{30}"
        r"|hf_[A-Za-z0-9]{30}|eyJ[A-Za-z0-9_-]{14})" + TAIL.pattern,
        _secret,
    ),
    _MAC,
    _IPV6,
    _shape("IBAN", rf"[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_END}", _iban),
    _USCC,
    _shape("UK_NINO", rf"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]{_END}"),
    _shape("US_PASSPORT", rf"[A-Z]\d{{8,9}}{_END}", _near("passport")),
    _shape("HK_ID", r"[A-Z]{1,2}\d{6}\([0-9A]\)", _checked(check.hk_identity)),
    _shape("TW_ID", rf"[A-Z][12]\d{{8}}{_END}", _checked(check.tw_identity)),
    _shape("CN_PASSPORT", rf"(?:E[A-HJ-NP-Z]\d{{7}}|[EG]\d{{8}}){_END}"),
    _shape("CN_PASSPORT", rf"[A-Z]\d{{8}}{_END}", _near("护照")),
    _shape("CN_HKMO_PERMIT", rf"[HMC]\d{{8}}(?:\d\d)?{_END}", _near("通行证|回乡证|permit")),
)
_PLATES = (_shape("CN_PLATE", rf"[{PROVINCES}][A-Z][· ]?[A-Z0-9]{{5,6}}{_END}", _plate),)
_START = re.compile(
    r"(?<![A-Za-z0-9])(?:(?<![0-9][.-])(?=[+(]{0,2}[0-9])|(?=[A-Z]{1,2} ?[0-9]|[A-Fa-f][0-9A-Fa-f][:-]"
    r"|[A-Fa-f][0-9A-Fa-f]{0,3}:[0-9A-Fa-f]{1,4}:"
    r"|[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@|sk[-_]|rk_|gh[oprsu]_|github_|glpat-|xox|A[KS]IA|AIza|hf_|eyJ"
    rf"|[0-9A-HJ-NPQRTUWXY]{{2}}[0-9]{{6}}))|(?=[{PROVINCES}][A-Z])"
)
