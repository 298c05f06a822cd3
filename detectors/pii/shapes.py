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
from detectors.pii.item import LIKELY, SURE
from detectors.pii.secrets import PREFIX, SECRETS
from detectors.pii.shape import Confirm, ItemPattern, checked, digits_of, near, shape

MAX_ITEM = 96
MAX_SPACED = 64
PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_END = r"(?![A-Za-z0-9])"
_LOCAL = "A-Za-z0-9_À-ɏ"
_OTHER_NUMBER = re.compile(
    r"invoice|reference|\bref\b|order|ticket|tracking|serial|isbn|epoch|imei|\bpart\b|model|sku|batch|transaction"
    r"|sample|订单|流水|编号|单号|发票号|序列号|编码|型号|批号|批次|合同号|时间戳|样本|工单"
)
_CALL = re.compile(
    r"phone|\bcall|\btel\b|mobile|\bcell\b|contact|whatsapp|\bfax|\btext (?:me|him|her|us)|dial|ring me|\bsms\b"
    r"|reach (?:me|us|him|her)|not answering at|电话|手机|联系|致电|座机|传真|热线|拨打|号码"
)
_CALL_JUST_BEFORE = re.compile(
    r"(?:phone|\btel|mobile|\bcell|call (?:me|us|him|her)|whatsapp|\bfax|dial|电话|手机|热线|传真|座机)"
    r"(?: ?(?:number|no\.?|#|at|on|号码|号))?(?: ?(?:is|是|为))?[ :=\"']{0,4}$"
)
_CARD = re.compile(r"(?<!id)(?<!id[_ -])card|\bcc\b|visa|卡")
_IDENTITY = re.compile(r"身份|证|\bid\b|identity")
_HONG_KONG = re.compile(r"hkid|hong kong id|香港.{0,6}身份证|香港.{0,6}证件")
_LATIN_ONLY = re.compile(r"[a-z]{3}[^一-鿿]*$")


def _number(confirm: Confirm, within: int = 24) -> Confirm:
    """Confirms what no word just before calls a number of another kind."""
    return lambda candidate, before: 0 if _OTHER_NUMBER.search(before[-within:]) else confirm(candidate, before)


def _email(candidate: str, before: str) -> int:
    """The longest head that ends in a top-level domain; a candidate that fills its window needs none at its end."""
    if len(candidate) >= MAX_ITEM:
        return len(candidate) if "." in candidate.partition("@")[2] else 0
    end = 0
    for label in re.finditer(r"\.([A-Za-z]{2,24}|xn--[A-Za-z0-9-]{1,59})(?![A-Za-z0-9-])", candidate):
        end = label.end() if label.start() > candidate.index("@") else end
    return end


def _iban(candidate: str, before: str) -> int:
    left = check.iban_length(candidate.replace(" ", "").upper())
    for place, char in enumerate(candidate):
        left -= char != " "
        if not left and char != " ":
            whole = place + 1 == len(candidate) or candidate[place + 1] == " "
            return place + 1 if whole else 0
    return 0


def _resident_of_15_digits(candidate: str, before: str) -> int:
    """Fifteen digits have no check digit of their own, so a Luhn number without a word for it is an IMEI or a card."""
    if not check.cn_resident(candidate):
        return 0
    return len(candidate) if _IDENTITY.search(before) or not check.luhn(candidate) else 0


def _card(chinese: bool) -> Confirm:
    def confirm(candidate: str, before: str) -> int:
        digits = candidate.replace(" ", "").replace("-", "")
        if digits.startswith(("62", "436742", "9558")) is not chinese:
            return 0
        named = _CARD.search(before) is not None
        if not named and (len(digits) < 14 or not check.payment_card(digits) or _OTHER_NUMBER.search(before[-24:])):
            return 0
        return len(candidate) if check.luhn(digits) else 0

    return confirm


def _uscc(candidate: str, before: str) -> int:
    named = not candidate.isdigit() or re.search("信用代码|税号", before)
    return len(candidate) if named and check.uscc(candidate) else 0


def _plate(candidate: str, before: str) -> int:
    plausible = any(char.isdigit() or char == "·" for char in candidate) or re.search("车|牌|驾|开着", before)
    return len(candidate) if plausible else 0


def _ip(candidate: str, before: str) -> int:
    valid = all(int(part) <= 255 and (part == "0" or part[0] != "0") for part in candidate.split("."))
    return len(candidate) if valid and not re.search(r"(?:version|版本|release|section|v)[ :]?$", before) else 0


def _ipv6(candidate: str, before: str) -> int:
    plausible = candidate.count(":") >= 3 and any(char.isdigit() for char in candidate)
    return len(candidate) if plausible and check.ipv6(candidate) else 0


def _with_digit(candidate: str, before: str) -> int:
    return len(candidate) if any(char.isdigit() for char in candidate) else 0


def _ssn(candidate: str, before: str) -> int:
    return len(candidate) if "-" in candidate or re.search(r"ssn|social security", before) else 0


def _landline(candidate: str, before: str) -> int:
    """A number in groups or behind a word for it; one with a space in an English sentence is some other country's."""
    if " " in candidate and _LATIN_ONLY.search(before):
        return 0
    split = not candidate.isdigit() or _CALL.search(before)
    return len(candidate) if split and not _OTHER_NUMBER.search(before[-8:]) else 0


def _phone(candidate: str, before: str) -> int:
    return len(candidate) if 7 <= len(digits_of(candidate)) <= 15 else 0


def _called(candidate: str, before: str) -> int:
    return _phone(candidate, before) if _CALL.search(before[-24:]) else 0


def _hong_kong(candidate: str, before: str) -> int:
    return len(candidate) if _HONG_KONG.search(before) and check.hk_identity(candidate) else 0


_EMAIL = ItemPattern(
    "EMAIL",
    re.compile(rf"[{_LOCAL}][{_LOCAL}.%+-]{{0,63}}@[A-Za-z0-9À-ɏ](?:[A-Za-z0-9À-ɏ.-]*[A-Za-z0-9À-ɏ])?"),
    _email,
    SURE,
    re.compile(r"[A-Za-z0-9À-ɏ-]*(?:\.[A-Za-z0-9À-ɏ-]+)*"),
)
_MAC = shape("MAC", r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![A-Za-z0-9:])", _with_digit)
_DOTTED_MAC = shape("MAC", r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?!\.?[A-Za-z0-9])", _with_digit)
_IPV6 = shape("IP", r"[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{2,37}[0-9A-Fa-f](?![A-Za-z0-9:])", _ipv6)
_USCC = shape("CN_USCC", rf"[0-9A-HJ-NPQRTUWXY]{{2}}\d{{6}}[0-9A-HJ-NPQRTUWXY]{{10}}{_END}", _uscc)
_PASSPORT = r"passport|护照"
_QQ = r"(?:qq|扣扣)(?:号码?|群|账?号|群号)?(?: ?(?:[:：是为]|is)| )? ?$"
_AREA = r"(?:10|2\d|[3-9]\d\d)"
NUMBERS = (
    _EMAIL,
    shape("IP", r"(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z]|\.\d)", _ip),
    _MAC,
    _DOTTED_MAC,
    _IPV6,
    shape("CN_ID", rf"[1-9]\d{{5}}[ -]?\d{{8}}[ -]?\d{{3}}[0-9Xx]{_END}", checked(check.cn_resident)),
    _USCC,
    shape(
        "CN_MOBILE",
        rf"(?:\((?:\+|00)?86\)[ -]?|(?:\+|00)?86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_END}",
        _number(lambda candidate, before: len(candidate), 10),
    ),
    shape("CN_BANK_CARD", rf"\d(?:[ -]?\d){{15,18}}{_END}", _card(chinese=True)),
    shape("CREDIT_CARD", rf"\d(?:[ -]?\d){{11,18}}{_END}", _card(chinese=False)),
    shape("CN_ID", rf"[1-8]\d{{14}}{_END}", _number(_resident_of_15_digits)),
    shape("US_SSN", rf"(?!000|666|9)\d{{3}}([- ])(?!00)\d\d\1(?!0000)\d{{4}}{_END}", _ssn),
    shape("CN_LANDLINE", rf"(?:\(0{_AREA}\)|0{_AREA})[ -]?[2-8]\d{{2,3}}[ -]?\d{{4}}{_END}", _landline),
    shape("PHONE", rf"\+?1[ .-]?(?:\([2-9]\d\d\)|[2-9]\d\d)[ .-]?\d{{3}}[ .-]?\d{{4}}{_END}", _number(_phone, 10)),
    shape("PHONE", rf"(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[.-])\d{{3}}[.-]\d{{4}}{_END}"),
    shape("PHONE", rf"\+[1-9]\d{{0,2}}(?:[ .-]?(?:\(\d{{1,4}}\)|\d{{1,4}})){{2,5}}{_END}", _phone),
    shape("US_PASSPORT", rf"\d{{9}}{_END}", near(_PASSPORT), LIKELY),
    shape("US_SSN", rf"(?!000|666|9)\d{{9}}{_END}", near(r"\bssn\b|social security"), LIKELY),
    shape("QQ", rf"[1-9]\d{{4,10}}{_END}", near(_QQ), LIKELY),
    shape("PHONE", rf"(?:\(\d{{2,5}}\)|\d{{2,5}})(?:[ .-]\d{{2,7}}){{1,4}}{_END}", _called, LIKELY),
    shape("PHONE", rf"\d{{7,15}}{_END}", near(_CALL_JUST_BEFORE.pattern), LIKELY),
)
WORDS = (
    _EMAIL,
    *SECRETS[:1],
    _MAC,
    _DOTTED_MAC,
    _IPV6,
    shape("IBAN", rf"[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{4}}){{2,7}}(?: ?[A-Z0-9]{{1,3}})?{_END}", _iban),
    shape("IBAN", rf"[a-z]{{2}}\d{{2}}[a-z0-9]{{11,30}}{_END}", _iban),
    _USCC,
    shape("UK_NINO", rf"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]{_END}"),
    shape("US_PASSPORT", rf"[A-Z]\d{{8,9}}{_END}", near("passport"), LIKELY),
    shape("HK_ID", r"[A-Z]{1,2}\d{6}\([0-9A]\)", checked(check.hk_identity)),
    shape("HK_ID", rf"[A-Z]{{1,2}}\d{{6}}[0-9A]{_END}", _hong_kong),
    shape("TW_ID", rf"[A-Z][1289]\d{{8}}{_END}", _number(checked(check.tw_identity))),
    shape("CN_PASSPORT", rf"(?:E[A-HJ-NP-Z]\d{{7}}|[EG]\d{{8}}){_END}", _number(lambda candidate, before: 9, 10)),
    shape("CN_PASSPORT", rf"[A-Z]\d{{8}}{_END}", near("护照"), LIKELY),
    shape("CN_HKMO_PERMIT", rf"[HMC]\d{{8}}(?:\d\d)?{_END}", near("通行证|回乡证|permit"), LIKELY),
)
PLATES = (shape("CN_PLATE", rf"[{PROVINCES}][A-Z][· ]?[A-Z0-9]{{5,6}}{_END}", _plate),)
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
