"""Chinese names: a listed surname with one or two characters, confirmed by what stands before and after it.

A name of two characters is told from an ordinary word by its neighbours only, so it needs a cue: a word for a person or
a field before it (姓名, 患者, 联系), or what belongs to a person after it (先生, 身份证, a number in brackets).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from detectors.pii.item import GUESS, LIKELY, PiiItem
from detectors.pii.lexicon import characters, words

_WEAK = "请把和与给跟由让向找问被为对及、从将是"
"""Words that may take a person as well as a thing."""
_AFTER = re.compile(
    r"(?:先生|女士|小姐|老师|医生|教授|经理|同学|师傅|主任|律师|护士|同志|阿姨|叔叔|携带|持有|驾驶|报名|来电|签收"
    r"|的?(?:身份证|证件|手机|电话|护照|港澳|通行证|银行卡|卡号|账号|账户|微信|邮箱|地址|住址|住在|家住|车牌|工号|病历|QQ)"
    r"|[，, ]{0,2}(?:男|女)[，,。 ]|[，, ]{0,2}(?:出?生于|身份证|手机|电话|护照|住址|地址|邮箱|生日)"
    r"|[ :：,，]{0,2}\+?[0-9]{7}|[(（\[【<][+0-9]|[(（][男女])"
)
_TITLE = re.compile("先生|女士|小姐|老师|医生|教授|经理|总|某")
"""A surname with one of these is no name yet."""
_EDGE = re.compile(r"[^一-鿿A-Za-z0-9]|$")
_STOPS = frozenset(
    "的了在是有和与及或就都也很不没要去来说这那我你他她它们先女小老身手电住地护证号码年月日时分从向往将被把给"
)
_TWO = re.compile("[一-鿿]{0,2}")
_MAX_CUE = 4
_MAX_LINK = 3
_LINK = " :：\"'“‘是为叫=*|"
"""What may stand between a cue and the name."""
_LINKS = frozenset(_LINK)


class _Forms(NamedTuple):
    start: re.Pattern[str]
    """Where a name may begin: a surname that stands behind what a cue ends with, or one with given characters and
    what belongs to a name after them."""
    double: frozenset[str]
    others: frozenset[str]
    """Words that begin like a name."""
    given: frozenset[str]
    strong: frozenset[str]
    heralds: frozenset[str]
    """Characters that a cue ends with; behind any other one, a name needs no look at what stands before."""


@cache
def _forms() -> _Forms:
    double, given = words("zh_double_surnames"), characters("zh_given")
    strong = words("zh_cues")
    first = characters("zh_surnames") + "".join(sorted({name[0] for name in double}))
    second = "".join(sorted({name[1] for name in double}))
    cue_ends = "".join(sorted({cue[-1] for cue in strong} | _LINKS))
    short = "".join(sorted({cue for cue in strong if len(cue) == 1} | _LINKS))
    tails = "|".join(sorted({cue[-2:] for cue in strong if len(cue) > 1}))
    # what few characters hold is asked first: the alternation of cues is slow
    cued = f"(?<=[{re.escape(cue_ends)}].)(?:(?<=[{re.escape(short)}].)|(?<=(?:{tails}).))"
    return _Forms(
        re.compile(f"[{first}](?:{cued}|[{second}]?[{given}]{{1,2}}(?:{_AFTER.pattern}|{_EDGE.pattern}))"),
        double,
        words("zh_not_people") | {province[:2] for province in words("zh_provinces")},
        frozenset(given),
        strong,
        frozenset(cue_ends) | set(_WEAK),
    )


def persons_zh(text: str) -> Iterator[PiiItem]:
    """Names in `text`, in order of their start; score LIKELY with a cue before and after it, GUESS with one."""
    forms, offset = _forms(), 0
    while match := forms.start.search(text, offset):
        start = match.start()
        offset = start + 1
        if text[start : start + 2] in forms.others:
            continue
        last = text[start - 1] if start else "\n"
        listed = text[start + 1 : start + 2] in forms.given
        ordinary = "一" <= last <= "鿿" and last not in forms.heralds
        if (ordinary and not listed) or start + 1 >= len(text):
            continue
        given = start + 2 if text[start : start + 2] in forms.double else start + 1
        before = 0 if ordinary else _before(text, start, forms.strong)
        if end := _end(text, start, given, before, forms.given):
            sure = before == 2 and (_AFTER.match(text, end) or _EDGE.match(text, end))
            yield PiiItem("PERSON", start, end, LIKELY if sure else GUESS)
            offset = end


def _before(text: str, start: int, strong: frozenset[str]) -> int:
    """2 behind a word for a person or a field, 1 at an edge or behind a word that takes a person, 0 otherwise."""
    for offset in range(start, max(0, start - _MAX_LINK) - 1, -1):
        cue = text[max(0, offset - _MAX_CUE) : offset]
        if cue[-2:] in strong or cue[-3:] in strong or cue in strong or cue[-1:] in strong:
            return 2
        if cue[-1:] not in _LINKS:
            break
    if start == 0 or text[start - 1] in _WEAK:
        return 1
    return 1 if not ("一" <= text[start - 1] <= "鿿") else 0


def _end(text: str, start: int, offset: int, before: int, given: frozenset[str]) -> int:
    """The end of the name whose given characters begin at `offset`; 0 where there is none. Two are tried before one."""
    two = _TWO.match(text, offset)[0]  # type: ignore[index]
    if not two or (before < 2 and two[0] not in given) or _TITLE.match(text, offset):
        return 0
    for count in range(len(two), 0, -1):
        listed = given.issuperset(two[:count])
        if not listed and before < 2:
            continue
        end = offset + count
        after = _AFTER.match(text, end) is not None
        edge = _EDGE.match(text, end) is not None
        if before == 2:
            if listed and (count == 2 or two[-1] not in given or after or edge):
                return end
            if (after or edge) and _STOPS.isdisjoint(two[:count]):
                return end
        elif (after and (count == 2 or before)) or (before and edge and _framed(text, start, end)):
            return end
    return 0


def _framed(text: str, start: int, end: int) -> bool:
    """True where the name stands alone between quotation marks, in a cell, or before a number."""
    left = text[start - 1] if start else "\n"
    right = text[end] if end < len(text) else "\n"
    return left in "\"'“‘(（\n\t,，、;；|<>【" and right in "\"'”’)）\n\t,，、;；|<> 】:："
