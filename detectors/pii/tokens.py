"""Format-preserving tokens: same length, same signs, each character replaced by one of its class, under a key.

The construction is a one-way keyed substitution: the characters are drawn from HMAC-SHA256 in counter mode (RFC 2104;
the counter mode of NIST SP 800-108) over the type and the item without its signs. It is not FF1 (NIST SP 800-38G):
the item is never needed back from its token, FF1 is defined only for domains of a million values and more, which
short items miss, and there is no well kept library of it. Two items share a token with the chance of two random ones.
No token passes for a real item: check digits are made wrong, and types without one get what is never assigned.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator

from detectors.pii import checks as check
from detectors.pii.item import plain

MIN_KEY = 16
"""Bytes; a random key of 32 is better."""
_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_STEMS = "甲乙丙丁戊己庚辛壬癸"
"""Heavenly stems, which Chinese texts use as we use A, B, C for a person without a name."""
_SIGNS = re.compile(r"[\W_]+")
_FIRST_RUN = re.compile("[0-9]+")
_RUN_START = re.compile("(?<![0-9])[0-9]")
_TOP_LEVEL = re.compile(r"(?<=\.)[A-Za-z]{2}(?=[A-Za-z]*\Z)")
_UNASSIGNED = {"UK_NINO": "ZZ", "CN_PASSPORT": "Q", "US_PASSPORT": "Q", "CN_HKMO_PERMIT": "Q"}
"""First letters that are never given out."""
_CHECKED = frozenset({"CREDIT_CARD", "CN_BANK_CARD", "IBAN", "CN_USCC", "HK_ID", "TW_ID"})


def digest(value: str, kind: str, key: bytes) -> bytes:
    """32 bytes that stand for an item: HMAC-SHA256 of its type and of its letters and digits in small letters."""
    same = _SIGNS.sub("", plain(value)).lower() or value
    return hmac.digest(key, f"{kind}\0{same}".encode("utf-8", "surrogatepass"), "sha256")


def token(value: str, kind: str, key: bytes) -> str:
    """A token for `value`, as long as it is. Equal items get equal ones where they have the same signs and case."""
    draws = _draws(digest(value, kind, key))
    read = plain(value)
    text = "".join(_drawn(char, next(draws), kind) for char in read)
    return _unreal(text, kind)


def _draws(seed: bytes) -> Iterator[int]:
    """Numbers of 32 bits."""
    count = 0
    while True:
        block = hmac.digest(seed, count.to_bytes(4, "big"), "sha256")
        yield from (int.from_bytes(block[index : index + 4], "big") for index in range(0, 32, 4))
        count += 1


def _drawn(char: str, number: int, kind: str) -> str:
    if char in _DIGITS:
        return _DIGITS[number % 10]
    if not char.isalpha():
        return char
    if kind in ("MAC", "IP"):
        return "abcdef"[number % 6] if char.islower() else "ABCDEF"[number % 6]
    if char >= "⺀":
        return _STEMS[number % 10]
    return _UPPER[number % 26] if char.isupper() else _LOWER[number % 26]


def _unreal(text: str, kind: str) -> str:
    """The token, changed so that no real item can be equal to it."""
    if kind in _CHECKED:
        return _wrong(text, kind)
    if kind == "EMAIL":
        # ISO 3166 keeps ZZ for users, so no top-level domain of two letters is called so, and none begins with it
        return _TOP_LEVEL.sub("zz", text)
    if kind in _UNASSIGNED and text[0].isalpha():
        first = _UNASSIGNED[kind]
        return first + text[len(first) :]
    if kind == "CN_PLATE":
        return text[:1] + "O" + text[2:]
    if kind in ("US_SSN", "PHONE", "CN_LANDLINE", "IP"):
        # no area of either kind, no country and no host's network is all zeros
        return _FIRST_RUN.sub(lambda run: "0" * len(run[0]), text, count=1)
    # no year, number of a subscriber, province or house begins with 0
    return _RUN_START.sub("0", text)


def _wrong(text: str, kind: str) -> str:
    """The token with a wrong check digit: every one of these schemes tells a single changed digit."""
    if not _passes(text, kind):
        return text
    place = max(index for index, char in enumerate(text) if char in _DIGITS)
    return text[:place] + _DIGITS[(int(text[place]) + 1) % 10] + text[place + 1 :]


def _passes(text: str, kind: str) -> bool:
    bare = re.sub(r"[ ()\-]", "", text).upper()
    try:
        match kind:
            case "IBAN":
                return check.iban_length(bare) > 0
            case "CN_USCC":
                return check.uscc(bare)
            case "HK_ID":
                return check.hk_identity(bare)
            case "TW_ID":
                return check.tw_identity(bare)
            case _:
                return check.luhn(bare)
    except ValueError:
        # letters where the scheme has none
        return False
