"""Structured personal data: what each format looks like and what confirms it.

An item is decided by the text from CONTEXT characters before it to its end and one character more, so a stream needs
to hold back only what may still grow into an item (`stream.StreamRedactor`). Limits that this rests on: what a pattern
recognises is shorter than MAX_ITEM, an item that holds a space is shorter than MAX_SPACED, and a space in an item
stands alone, after a word with a digit, two capitals or a plate's province, between words without small letters.
Types are named as in the project's detection data.
"""

from __future__ import annotations

import re

from detectors.pii import checks as check
from detectors.pii.cards import CARDS, IBANS
from detectors.pii.item import LIKELY, SURE
from detectors.pii.network import DOTTED_MAC, IP, IPV6, MAC
from detectors.pii.phones import CALLED, MOBILES, PHONES
from detectors.pii.secrets import PREFIX, SECRETS, URL_PASSWORD
from detectors.pii.shape import END, JOINED, OTHER_NUMBER, Confirm, ItemPattern, checked, near, shape

MAX_ITEM = 96
MAX_SPACED = 64
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_LOCAL = "A-Za-z0-9_À-ɏ"
_IDENTITY = re.compile(r"身份|证|\bid\b|identity")
_HONG_KONG = re.compile(r"hkid|hong kong id|香港.{0,6}身份证|香港.{0,6}证件")
_NINO_UNUSED = frozenset(("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"))
_REMOTE = re.compile(r"\b(?:scp|rsync|sftp|ssh|ssh-copy-id|git clone|remote add)\b[^\n]*$")
"""A command whose argument is a user at a host, as an address of mail looks."""
_IN_URL = re.compile(r"://[^\s/]*$")
_FOREIGN = re.compile(
    r"brit|\buk\b|united kingdom|english|irish|indian?\b|german|french|france|ital|spa(?:in|nish)|japan|korea|canad"
    r"|austral|new zealand|brazil|mexic|russia|dutch|netherlands|singapore|malaysia|philippin|thai|vietnam|indonesia"
    r"|turk|swiss|swed|norw|danish|finn|polish|portug|greek|ukrain|nigeria|kenya|egypt"
    r"|英国|法国|德国|意大利|西班牙|日本|韩国|加拿大|澳大利亚|澳洲|新西兰|新加坡|马来西亚|印度|俄罗斯|巴西|泰国|越南|菲律宾|瑞士|荷兰"
)
"""Countries that give numbers of the same forms."""
_HAN = re.compile("[一-鿿]")
_FILE = re.compile(r"(?:png|jpe?g|gif|svg|webp|css|jsx?|tsx?|json|html?|ya?ml|xml|txt|dll|exe|jar)$", re.IGNORECASE)


def _number(confirm: Confirm, within: int = 24) -> Confirm:
    """Confirms what stands by itself and what no word just before calls a number of another kind."""

    def confirmed(candidate: str, before: str) -> int:
        kind = before[max(0, len(before) - within) :]
        return 0 if JOINED.search(before) or OTHER_NUMBER.search(kind) else confirm(candidate, before)

    return confirmed


def _email(candidate: str, before: str) -> int:
    """The longest head that ends in a top-level domain; a candidate that fills its window needs none at its end."""
    if _IN_URL.search(before) or _REMOTE.search(before):
        return 0
    if len(candidate) >= MAX_ITEM:
        return len(candidate) if "." in candidate.partition("@")[2] else 0
    end = 0
    for label in re.finditer(r"\.([A-Za-z]{2,24}|xn--[A-Za-z0-9-]{1,59})(?![A-Za-z0-9-])", candidate):
        end = label.end() if label.start() > candidate.index("@") else end
    return 0 if end and _FILE.search(candidate[candidate.rindex(".", 0, end) + 1 : end]) else end


def _resident_of_15_digits(candidate: str, before: str) -> int:
    """Fifteen digits have no check digit of their own, so a Luhn number without a word for it is an IMEI or a card."""
    if not check.cn_resident(candidate):
        return 0
    return len(candidate) if _IDENTITY.search(before) or not check.luhn(candidate) else 0


def _uscc(candidate: str, before: str) -> int:
    named = not candidate.isdigit() or re.search("信用代码|税号", before)
    return len(candidate) if named and not JOINED.search(before) and check.uscc(candidate) else 0


def _plate(candidate: str, before: str) -> int:
    plausible = any(char.isdigit() or char == "·" for char in candidate) or re.search("车|牌|驾|开着", before)
    return len(candidate) if plausible else 0


def _ssn(candidate: str, before: str) -> int:
    if JOINED.search(before):
        return 0
    return len(candidate) if "-" in candidate or re.search(r"ssn|social security", before) else 0


def _passport(candidate: str, before: str) -> int:
    """Of the two forms without a word for it: two letters, or one in a Chinese text."""
    return len(candidate) if candidate[1].isalpha() or re.search("passport|护照", before) or _HAN.search(before) else 0


def _american_passport(candidate: str, before: str) -> int:
    words = "passport" if candidate[0].isalpha() else "passport|护照"
    return len(candidate) if re.search(words, before) and not _FOREIGN.search(before) else 0


def _chinese_passport(candidate: str, before: str) -> int:
    return len(candidate) if "护照" in before and not _FOREIGN.search(before) else 0


def _nino(candidate: str, before: str) -> int:
    """In groups, as it is printed on letters, or behind a word for it: in one run parts of machines look the same."""
    if re.search(r"\bni(?:no)?\b|insurance|hmrc|payroll|taxpayer", before):
        return len(candidate)
    return len(candidate) if " " in candidate and candidate[:2] not in _NINO_UNUSED else 0


def _hong_kong(candidate: str, before: str) -> int:
    return len(candidate) if _HONG_KONG.search(before) and check.hk_identity(candidate) else 0


_EMAIL = ItemPattern(
    "EMAIL",
    re.compile(
        rf"[{_LOCAL}][{_LOCAL}.%+-]{{0,63}}@(?>[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ.-]*(?!E<gt>)[A-Za-z0-9À-ɏ])?)"
        r"(?!:[\w.~+-]*/)"
    ),
    _email,
    SURE,
    re.compile(r"[A-Za-z0-9À-ɏ-]*(?:\.[A-Za-z0-9À-ɏ-]+)*"),
)
_USCC = shape("CN_USCC", rf"[0-9A-HJ-NPQRTUWXY]{{2}}\d{{6}}[0-9A-HJ-NPQRTUWXY]{{10}}{END}", _uscc)
_QQ = r"(?:qq|扣扣)(?:号码?|群|账?号|群号)?(?: ?(?:[:：是为]|is)| )? ?$"
_AREA = r"(?:10|2\d|[3-9]\d\d)"
NUMBERS = (
    URL_PASSWORD,
    _EMAIL,
    IP,
    MAC,
    DOTTED_MAC,
    IPV6,
    shape("CN_ID", rf"[1-9]\d{{5}}[ -]?\d{{8}}[ -]?\d{{3}}[0-9Xx]{END}", _number(checked(check.cn_resident), 0)),
    _USCC,
    *MOBILES,
    *CARDS,
    shape("CN_ID", rf"[1-8]\d{{14}}{END}", _number(_resident_of_15_digits)),
    shape("US_SSN", rf"(?!000|666|9)\d{{3}}([- ])(?!00)\d\d\1(?!0000)\d{{4}}{END}(?!-\d)", _ssn),
    *PHONES,
    shape("US_PASSPORT", rf"\d{{9}}{END}", _american_passport, LIKELY),
    shape("US_SSN", rf"(?!000|666|9)\d{{9}}{END}", near(r"\bssn\b|social security"), LIKELY),
    shape("QQ", rf"[1-9]\d{{4,10}}{END}", near(_QQ), LIKELY),
    *CALLED,
)
WORDS = (
    URL_PASSWORD,
    _EMAIL,
    *SECRETS[:1],
    MAC,
    DOTTED_MAC,
    IPV6,
    *IBANS,
    _USCC,
    shape("UK_NINO", rf"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]{END}", _nino),
    shape("US_PASSPORT", rf"[A-Z]\d{{8,9}}{END}", _american_passport, LIKELY),
    shape("HK_ID", r"[A-Z]{1,2}\d{6}\([0-9A]\)", checked(check.hk_identity)),
    shape("HK_ID", rf"[A-Z]{{1,2}}\d{{6}}[0-9A]{END}", _hong_kong),
    shape("TW_ID", rf"[A-Z][1289]\d{{8}}{END}", _number(checked(check.tw_identity))),
    shape("CN_PASSPORT", rf"(?:E[A-HJ-NP-Z]\d{{7}}|[EG]\d{{8}}){END}", _number(_passport, 10)),
    shape("CN_PASSPORT", rf"[A-Z]\d{{8}}{END}", _chinese_passport, LIKELY),
    shape("CN_HKMO_PERMIT", rf"[HMC]\d{{8}}(?:\d\d)?{END}", near("通行证|回乡证|permit"), LIKELY),
)
PLATES = (shape("CN_PLATE", rf"[{PROVINCES}][A-Z][· ]?[A-Z0-9]{{5,6}}{END}", _plate),)
ENTROPIC = SECRETS[1:]
"""Tried last, where the run is long enough."""
REACH = 24
"""Code points after a place that START looks at, all but e-mail addresses and runs, which hold no space."""
START = re.compile(
    r"(?<![A-Za-z0-9])(?:(?<![0-9][.-])(?=[+(]{0,2}[0-9](?:[ .()-]{0,3}[0-9]){4}|[0-9]{1,3}\.[0-9]{1,3}\.[0-9])"
    r"|(?=[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]|[A-Z]{1,2} ?[0-9]|[a-z]{2}[0-9]{2}[a-z0-9]{11}"
    r"|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}:|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\."
    rf"|[{_LOCAL}][{_LOCAL}.%+-]{{0,63}}@|{PREFIX}|[A-Za-z0-9+/_-]{{16}}"
    rf"|[0-9A-HJ-NPQRTUWXY]{{2}}[0-9]{{6}}))|(?=[{PROVINCES}][A-Z])"
)
"""Where an item may begin."""
__all__ = ["ENTROPIC", "MAX_ITEM", "MAX_SPACED", "NUMBERS", "PLATES", "PROVINCES", "REACH", "START", "WORDS"]
