"""Numbers and names that only a word nearby tells: QQ and WeChat accounts, and passports of any country.

People write them in many ways: behind the word with little or much between, and before it (`12345678 is my QQ`). What
may stand between is bounded, holds no end of a sentence and no word for a product of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from detectors.pii.item import LIKELY, PiiItem
from detectors.pii.lexicon import words
from detectors.pii.places import Places

_REACH = 48
"""Code points before and after a word that are looked at."""
_LINK = (
    r"(?:[^a-z0-9\n。！？!?;；]|\b(?:is|was|i'm|im|id|no|num|number|account|handle|name|username|user|at|on|as|via|by|under|it|its"
    r"|it's|the|my|his|her|me|him|works|just|add|tim|to|s|called)\b"
    r"|\([a-z ]{2,12}\)|/[a-z]{2,8}(?= ?:)|[?？](?=[ —–-])){0,28}?"
)
_PRODUCT = re.compile(
    r"音乐|浏览器|飞车|邮箱|空间|游戏|炫舞|堂|斗地主|支付|小程序|公众|读书|平台|接口|聊天记录|记录|导出|版|客户端|开发"
    r"|新增|支持|下载|注册|用户|\bpay\b"
)
_COUNTED = re.compile(r" ?(?:[首个次人名%年元部版万亿条张位]|用户|members?|samples?|users?|people|users|dollars|times)")
_OTHER = r"(?![a-z0-9_]|[.:-][0-9])"
_NOUN = re.compile(r"[_-]?(?:id|no|num|number|account|name)(?![a-z])")
_QQ = re.compile(
    r"(?:号码?|[账帐]?号|群号?|群|[_-](?:id|no|num(?:ber)?|account))?(?:[12](?=[:：]))?"
    rf"(?P<gap>{_LINK})(?P<value>[1-9][0-9]{{4,10}}){_OTHER}"
)
_WHOSE = (
    r"[\"'”’）)\]】]?(?:[ ,，、]{0,2}(?:这|那)?(?:就)?(?:是|为) ?(?:我|他|她|你|咱|本人|老师)?们?的?|[ ,，、]{0,2}我的?"
    r"|[ ,，]?加(?:我|我的)?"
    r"| ?[(（\[【]|,? (?:is|that's) (?:my|his|her|our)| on) ?$"
)
_QQ_BEFORE = re.compile(rf"(?<![a-z0-9_.-])(?P<value>[1-9][0-9]{{4,10}}){_WHOSE}")
_SINGLE = frozenset(("q:", "q号", "q群", "加q", "我q", "私q", "戳q", "q我"))
_ENDS = re.compile(r"[ ]?(?:[^ a-z0-9+*/.%-]|$)")
_WECHAT = re.compile(
    r"(?P<noun>号码?|[账帐]号|号|[ _-]?id|[ _-](?:account|number|name)| handle| username)?"
    rf"(?P<gap>{_LINK})(?P<value>[a-z][a-z0-9_-]{{5,19}})(?![a-z0-9_@(-]|[.][a-z])"
)
_WECHAT_BEFORE = re.compile(rf"(?<![a-z0-9_.@-])(?P<value>[a-z][a-z0-9_-]{{5,19}})(?P<whose>{_WHOSE})")
_TOLD = re.compile(r"[:=是叫为(（]|\bis\b|\bas\b|'s")
_GIVEN = re.compile(r"[:=是叫为(（]")
_ADD = re.compile("[加的搜]")
_BEGINS = re.compile(r"(?:^|\n)[+ ]{0,2}$")
_MARKED = re.compile("[0-9_]")
_SHORT = frozenset(
    ("vx", "wx", "加v", "我v", "+v", "个v", "v我", "加微", "我微", "加薇", "我薇", "微:", "薇", "卫星", "v:")
)
"""Words that mean other things as well, so that an ideograph must stand nearby and a digit in the name."""
_APP = re.compile(r"wx[0-9a-f]{16}$|.*(?:appid|openid|unionid|sdk|api)")
_HAN = re.compile("[一-鿿]")
_WORD = re.compile("[a-z_]|-[a-z]")
_LATIN = re.compile("[a-z0-9_-]")
_PASSPORT = re.compile(
    r"(?:[^0-9\n.;!?。；！？]|\b[Nn][or]\.){0,40}?(?<![A-Za-z0-9.-])"
    r"(?P<value>[A-Z]{0,3}[0-9][A-Z0-9]{5,9}|[0-9]{2} [0-9]{2} [0-9]{6}|[0-9]{2} [0-9]{7})(?![A-Za-z0-9]|[.-][0-9])"
)
_NOT_PASSPORT = re.compile(
    r"phone|call|account|order|fee|flight|zip|mobile|expires|电话|手机|账号|卡号|航班|邮编|订单|有效期|签发"
)
_DAY = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9]$")
_LEAST_DIGITS, _SHORTEST = 4, 7


def handles(text: str, low: str, places: Places) -> Iterator[PiiItem]:
    """Such items in `text`, in order of their start within each type; `low` is it in small letters."""
    if places.qq:
        yield from _accounts(low, places.qq, "QQ")
    if places.wechat:
        yield from _accounts(low, places.wechat, "WECHAT")
    offset = 0
    for start, end in places.passport:
        if start >= offset and (found := _passport(text, low, end)):
            offset = found.end
            yield found


def _accounts(low: str, cues: list[tuple[int, int]], kind: str) -> Iterator[PiiItem]:
    """Accounts behind and before these words, each place once."""
    done = 0
    for start, end in cues:
        if start < done or not _stands_alone(low, start, end):
            continue
        behind = _qq(low, start, end) if kind == "QQ" else _wechat(low, start, end)
        place = behind or _before(low, done, start, end, kind)
        if place is not None:
            done = max(end, place[1])
            yield PiiItem(kind, *place, LIKELY)


def _stands_alone(low: str, start: int, end: int) -> bool:
    """True where the word is no part of a longer one in Latin letters."""
    if _LATIN.match(low[start]) and _LATIN.match(low[start - 1 : start]):
        return False
    latin = low[end - 1].isascii() and low[end - 1].isalpha()
    return not latin or _NOUN.match(low, end) is not None or _WORD.match(low, end) is None


def _qq(low: str, start: int, end: int) -> tuple[int, int] | None:
    match = _QQ.match(low, end, end + _REACH)
    if match is None or _PRODUCT.search(match["gap"]) or _COUNTED.match(low, match.end()):
        return None
    if low[start:end] in _SINGLE and not _ENDS.match(low, match.end()):
        return None
    return match.span("value")


def _wechat(low: str, start: int, end: int) -> tuple[int, int] | None:
    match = _WECHAT.match(low, end, end + _REACH)
    if match is None or _PRODUCT.search(match["gap"]) or _APP.match(match["value"]):
        return None
    noun, value = match["noun"], match["value"]
    marked = _MARKED.search(value) is not None
    if low[start:end] in _SHORT:
        near = low[max(0, start - _REACH // 2) : match.end() + _REACH // 2]
        begins = _BEGINS.search(low[max(0, start - 3) : start]) is not None and low[start:end] != "v:"
        told = marked and (begins or _HAN.search(near) is not None) and "=" not in match["gap"]
    elif marked:
        told = True
    else:
        gap = match["gap"].strip(" 索")
        asked = gap == "搜" or (not gap and _ADD.search(low, max(0, start - 4), start))
        given = asked or _GIVEN.search(match["gap"]) or (noun and _TOLD.search(match["gap"]))
        told = given is not None and value not in words("words")
    return match.span("value") if told else None


def _before(low: str, done: int, start: int, end: int, kind: str) -> tuple[int, int] | None:
    pattern = _QQ_BEFORE if kind == "QQ" else _WECHAT_BEFORE
    head = low[max(done, start - _REACH) : start]
    match = pattern.search(head)
    if match is None or _PRODUCT.match(low, end):
        return None
    if low[start:end] in _SHORT and not _HAN.search(low, max(0, start - _REACH // 2), end + _REACH // 2):
        return None
    if kind == "WECHAT" and not _MARKED.search(match["value"]):
        owned = re.search(r"我|my|his|her|our", match["whose"])
        if owned is None or match["value"] in words("words"):
            return None
    offset = start - len(head)
    return offset + match.start("value"), offset + match.end("value")


def _passport(text: str, low: str, end: int) -> PiiItem | None:
    match = _PASSPORT.match(text, end, end + _REACH)
    if match is None:
        return None
    value = match["value"].replace(" ", "")
    digits = sum(char.isdigit() for char in value)
    if digits < _LEAST_DIGITS or len(value) < _SHORTEST or _DAY.match(value):
        return None
    if _NOT_PASSPORT.search(low, end, match.start("value")):
        return None
    return PiiItem("PASSPORT", *match.span("value"), LIKELY)
