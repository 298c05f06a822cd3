"""Numbers of payment cards and accounts: in one run or in the groups that are printed on them, with a check digit."""

from __future__ import annotations

import re
from itertools import pairwise

from detectors.pii import checks as check
from detectors.pii.shape import END, JOINED, KEYED, OTHER_NUMBER, Confirm, digits_of, shape

_CARD = re.compile(
    r"(?<![a-z])(?<!id[ _-])cards?(?![a-z])|\bcc ?(?:no\.?|num(?:ber)?)? ?[:#=]? ?$|\bvisa\b|mastercard|\bamex\b|卡"
)
_GROUPED = r"\d{4}([ .-])\d{4}\1\d{4}\1\d{4}(?:\1\d{1,3})?|\d{4}([ .-])\d{6}\2\d{4,5}|\d{4}([ .-])\d{4}\3\d{5}"
_COLUMN_BEFORE = re.compile(r"[0-9a-f]{4,}[ .-]$")
_COLUMN_BEHIND = r"(?![ .-][0-9A-Fa-f]{4}(?![0-9A-Za-z/]))"
_LONG = {"4": (16,), "5": (16,), "6": (16,)}
"""Digits of cards whose number is written in one run where nothing nearby calls it a card, by the first one."""
_NUMBERED = re.compile("[a-z]{2}-$")
"""Before the number of a record, such as `INV-5364-6253-7364-1342`."""
_ROUND = re.compile("0{8}")
_FOUR = re.compile(r"\d{4}")


def _counted(digits: str) -> bool:
    """True where each four digits are one more than those before, as in a table of codes."""
    groups = [int(group) for group in _FOUR.findall(digits)]
    return all(after - before == 1 for before, after in pairwise(groups))


def _genuine(digits: str, chinese: bool) -> bool:
    if _counted(digits):
        return False
    return digits.startswith(("62", "436742", "9558")) is chinese and check.luhn(digits) and not _ROUND.search(digits)


def _card(chinese: bool) -> Confirm:
    def confirm(candidate: str, before: str) -> int:
        if JOINED.search(before) or ("." in candidate and before[-1:] in (".", "[", "*", ",")):
            return 0
        named = _CARD.search(before) is not None
        if not named and (
            _NUMBERED.search(before)
            or KEYED.search(before)
            or OTHER_NUMBER.search(before[-24:])
            or _COLUMN_BEFORE.search(before)
        ):
            return 0
        # the last group of three and fewer may be what stands behind the card
        for length in (len(candidate), 19):
            digits = digits_of(candidate[:length])
            if (named or _issued(candidate[:length], digits)) and _genuine(digits, chinese):
                return length
        return 0

    return confirm


def _issued(candidate: str, digits: str) -> bool:
    """True where an issuer has such numbers; in one run only of the commonest lengths."""
    if len(digits) < 14 or not check.payment_card(digits):
        return False
    return not candidate.isdigit() or len(digits) in _LONG.get(digits[0], (len(digits),))


def _named(chinese: bool) -> Confirm:
    """Confirms groups of any length, as people type them, where a word nearby calls the number a card."""

    def confirm(candidate: str, before: str) -> int:
        digits = digits_of(candidate)
        return len(candidate) if _CARD.search(before) and not JOINED.search(before) and _genuine(digits, chinese) else 0

    return confirm


CARDS = (
    shape("CN_BANK_CARD", rf"(?:{_GROUPED}){END}{_COLUMN_BEHIND}", _card(chinese=True)),
    shape("CREDIT_CARD", rf"(?:{_GROUPED}){END}{_COLUMN_BEHIND}", _card(chinese=False)),
    shape("CN_BANK_CARD", rf"\d{{16,19}}{END}", _card(chinese=True)),
    shape("CREDIT_CARD", rf"\d{{12,19}}{END}", _card(chinese=False)),
    shape("CN_BANK_CARD", rf"\d(?:[ -]?\d){{15,18}}{END}", _named(chinese=True)),
    shape("CREDIT_CARD", rf"\d(?:[ -]?\d){{11,18}}{END}", _named(chinese=False)),
)


def _iban(candidate: str, before: str) -> int:
    left = check.iban_length(candidate.replace(" ", "").upper())
    if JOINED.search(before):
        return 0
    for place, char in enumerate(candidate):
        left -= char != " "
        if not left and char != " ":
            whole = place + 1 == len(candidate) or candidate[place + 1] == " "
            return place + 1 if whole else 0
    return 0


IBANS = (
    shape("IBAN", rf"[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{END}", _iban),
    shape("IBAN", rf"[a-z]{{2}}\d{{2}}[a-z0-9]{{11,30}}{END}", _iban),
)
