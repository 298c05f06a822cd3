"""Telephone numbers: of mainland China, of North America, of any country behind a plus, and of any form behind a word.

A hotline that its owner pays for leads to no person, unless a word nearby says whose number it is. Years, dates and
columns of numbers are no telephone numbers, whatever stands before them.
"""

from __future__ import annotations

import re

from detectors.pii.item import LIKELY
from detectors.pii.shape import CONTEXT, END, JOINED, KEYED, OTHER_NUMBER, digits_of, near, shape

_CALL = re.compile(
    r"phone|\bcall(?! ?(?:ed|s|ing|er|back \w+\(|ee|_|\())|\btel\b|mobile|\bcell\b|contact|whatsapp|\bfax"
    r"|\btext (?:me|him|her|us)|\bdial\b|ring me|\bsms\b|reach (?:me|us|him|her)|not answering at"
    r"|电话|手机|联系|致电|座机|传真|热线|拨打|号码"
)
_CALL_JUST_BEFORE = (
    r"(?:phone|\btel|mobile|\bcell|call (?:me|us|him|her)|whatsapp|\bfax|\bdial|电话|手机|热线|传真|座机)"
    r"(?: ?(?:number|no\.?|#|at|on|号码|号))?(?: ?(?:is|是|为))?[ :=\"']{0,4}$"
)
_OWN = re.compile(r"\b(?:my|me|his|him|her|their)\b|emergency|联系人|本人|我的")
_LATIN_ONLY = re.compile(r"[a-z]{3}[^一-鿿]*$")
_HAN = re.compile("[一-鿿]")
_COLUMN_BEFORE = re.compile(r"[0-9] $")
_BYTES = 4096
"""A count of bytes is often a multiple of it, a number of a person hardly ever."""
_ROUND = re.compile("0{6}$")
_FREE = frozenset(("400", "800", "822", "833", "844", "855", "866", "877", "888"))
_NOT_ASSIGNED = re.compile("[2-9]00")
_YEARS = re.compile(r"(?:19|20)\d\d(?:[ .-](?:19|20)?\d\d)+$")
_DATE = re.compile(r"(?:(?:19|20)\d\d[ .-](?:0?[1-9]|1[0-2])[ .-]\d{1,2}|\d{1,2}[.-]\d{1,2}[.-](?:19|20)\d\d)(?![0-9])")
_SIGN = re.compile("[ .-]")
_MOST_GROUPS, _LONGEST_GROUP = 4, 4
"""Numbers in many groups have short ones; a line that a patch adds may be any row of numbers."""
_FIRST_GROUP = re.compile(r"\+(\d+)[ .-]")
_OPERATOR = re.compile(r"[=*/%<>^+-] ?$")
_MADE_UP = "01234567890 09876543210 11234567890"
_PREFIXED = re.compile(r"\+\d{0,3}[ .-]?$|[\[*.]$")
_REGULATION = re.compile(r"(?:\bd?fars?|\bcfr|§)\s?$")
_COUNTRY = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-689]\d|3[578]\d|42[013]|50\d|59\d|6[789]\d|85[02356]|88[06]|96\d|97[0-7]|99[2-8]"
)
_PERSONAL_800 = "46|66|91|2(?:2[07]|32|43|5[12]|91)|50[1245]|67[3469]|855|961|97[26]|99[28]"
"""Countries where mobile numbers or those of towns begin with 800."""
_FREE_ABROAD = re.compile(
    rf"(?!{_PERSONAL_800})(?:{_COUNTRY.pattern})800"
    "|(?:57|6[1356]|84|91|353|376|50[25]|593|855|97[02])1800"
    "|(?:27|33|36|45|82|21[26]|262|299|371|375|38[67]|597|670|973)801"
    "|(?:26[78]|853)0800|44808|81120|86400"
)
_PLAIN_GROUPS = re.compile(r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?(?:\d([ .-]))?\d{2,}(?:[ .-]?\d{2,})*$")


def _mobile(candidate: str, before: str) -> int:
    digits = digits_of(candidate)
    if JOINED.search(before) or OTHER_NUMBER.search(before[-10:]):
        return 0
    if _CALL.search(before):
        return len(candidate)
    if (" " in candidate and _COLUMN_BEFORE.search(before)) or KEYED.search(before):
        return 0
    counted = int(digits) % _BYTES in (0, _BYTES - 1) or _ROUND.search(digits)
    return 0 if counted and candidate == digits else len(candidate)


def _landline(candidate: str, before: str) -> int:
    """A number in groups or behind a word for it; one with a space in an English sentence is some other country's."""
    if JOINED.search(before) or OTHER_NUMBER.search(before[-8:]):
        return 0
    called = _CALL.search(before)
    if " " in candidate and (_LATIN_ONLY.search(before) or not (called or _HAN.search(before) or "(" in candidate)):
        return 0
    return len(candidate) if called or not candidate.isdigit() else 0


def _american(candidate: str, before: str) -> int:
    """A number of the North American plan: ten digits, of which the first three name the area."""
    if JOINED.search(before) or OTHER_NUMBER.search(before[-10:]) or _REGULATION.search(before):
        return 0
    digits = digits_of(candidate)
    if digits in _MADE_UP:
        return 0
    area = digits[-10:][:3]
    called = _CALL.search(before[-24:])
    if (area in _FREE and not _OWN.search(before)) or (_NOT_ASSIGNED.match(area) and not called):
        return 0
    signs = {char for char in candidate if char in " .-"}
    grouped = len(signs) == 1 and (signs != {"."} or candidate.count(".") == (3 if candidate[0] in "+1" else 2))
    plain = candidate[0] == "+" and not signs
    split = "(" in candidate or (grouped and (signs != {" "} or candidate[0] == "+")) or plain
    return len(candidate) if split or called else 0


def _dotted(candidate: str, before: str) -> int:
    """In drawings and tables three numbers with dots follow letters and signs; a telephone number a space or quote."""
    if "." in candidate and before[-1:] in ("-", ",", "+", ".", "[", "*"):
        return 0
    return _american(candidate, before)


def _abroad(candidate: str, before: str) -> int:
    digits = digits_of(candidate)
    if not 7 <= len(digits) <= 15 or not _COUNTRY.match(digits):
        return 0
    first = _FIRST_GROUP.match(candidate)
    sure = _CALL.search(before[-24:])
    groups = _SIGN.split(candidate)
    uneven = len(groups) > _MOST_GROUPS and max(map(len, groups)) > _LONGEST_GROUP
    if not sure and (uneven or _OPERATOR.search(before) or (first and not _COUNTRY.fullmatch(first[1]))):
        return 0
    if _FREE_ABROAD.match(digits) and not _OWN.search(before):
        return 0
    return len(candidate) if sure or _PLAIN_GROUPS.match(candidate) else 0


def _called(candidate: str, before: str) -> int:
    digits = digits_of(candidate)
    if (
        not 7 <= len(digits) <= 15
        or len(set(digits)) < 3
        or digits in _MADE_UP
        or _YEARS.match(candidate)
        or _DATE.match(candidate)
    ):
        return 0
    if JOINED.search(before) or _PREFIXED.search(before) or not _CALL.search(before[-24:]):
        return 0
    free = candidate.startswith(("400", "800", "0800", "1800", "0808")) and not _OWN.search(before)
    return 0 if free else len(candidate)


_MOBILE = r"1(?:3\d|4[5-9]|5[0-35-9]|6[125-7]|7[0-8]|8\d|9[0-35-9])"
"""Beginnings that the plan of mainland China has given to mobile networks."""
_AREA = r"(?:10|2\d|[3-9]\d\d)"
_NO_GROUP = r"(?![.-]\d)"
_UNIT = r"(?! ?(?:[kKmMgGt]?i?[bB](?:ytes?)?|[munµ]?s|字节)\b)"
MOBILES = (
    shape(
        "CN_MOBILE",
        rf"(?:\((?:\+|00)?86\)[ -]?|(?:\+|00)?86[ -]?)?{_MOBILE}([ -]?)\d{{4}}\1\d{{4}}{END}{_UNIT}",
        _mobile,
    ),
)
PHONES = (
    shape("CN_LANDLINE", rf"(?:\(0{_AREA}\)|0{_AREA})[ -]?[2-8]\d{{2,3}}[ -]?\d{{4}}{END}{_NO_GROUP}", _landline),
    shape("PHONE", rf"\+?1[ .-]?(?:\([2-9]\d\d\)|[2-9]\d\d)[ .-]?\d{{3}}[ .-]?\d{{4}}{END}{_NO_GROUP}", _american),
    shape("PHONE", rf"\([2-9]\d\d\)[ .-]?\d{{3}}[ .-]\d{{4}}{END}{_NO_GROUP}", _american),
    shape("PHONE", rf"[2-9]\d\d([.-])\d{{3}}\1\d{{4}}{END}(?![.,-]\d)", _dotted),
    shape("PHONE", rf"\+[2-9]\d{{0,2}}(?:[ .-]?(?:\(\d{{1,4}}\)|\d{{1,4}})){{2,5}}{END}{_NO_GROUP}", _abroad),
)
CALLED = (
    shape("PHONE", rf"(?:\(\d{{2,5}}\)|\d{{2,5}})(?:[ .-]\d{{2,7}}){{1,4}}{END}{_NO_GROUP}", _called, LIKELY),
    shape("PHONE", rf"\d{{7,15}}{END}", near(_CALL_JUST_BEFORE, CONTEXT), LIKELY),
)
