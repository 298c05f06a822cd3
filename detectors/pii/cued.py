"""Items that only a word nearby tells from other text: dates of birth, WeChat names, passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detectors.pii.item import LIKELY, SECRET, Item

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DATE = re.compile(
    r"(?<![0-9./-])(?:[0-9]{4}([-/.])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\2(?:[0-9]{4}|[0-9]{2})"
    r"|[0-9]{4} ?年 ?[0-9]{1,2} ?月 ?[0-9]{1,2} ?[日号]?|(?:19|20)[0-9]{6}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},? [0-9]{{4}})(?![0-9])"
    rf"|(?<![A-Za-z]){_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}(?![0-9])"
)
_BORN = re.compile(r"(?:\bborn\b|birth|\bdob\b|d\.o\.b|出生|生日|生于|诞辰|出生年月)[^。.;；\n]{0,24}$")
_BORN_AFTER = re.compile(r"[ ,，]?(?:出?生(?:人|于|的|[，,。；]|$)|出生)")
_WECHAT = re.compile(
    r"(?:微信|薇信|威信|\bvx|wechat|weixin|\bwx)(?:号码?|账号|帐号|id| id| account| number| handle)?"
    r"(?P<told> ?(?:[:=：]|是|为|is\b|叫)| ?[(（]| )?[ \"'“]{0,2}(?P<name>[a-z][a-z0-9_-]{5,19})(?![a-z0-9_-])",
    re.IGNORECASE,
)
_PASSWORD = re.compile(
    r"(?:password|passwd|passphrase|\bpwd|密码|口令)(?: ?(?:is|was|是|为|:|=|：)+)[ \"'“]{0,2}"
    r"([^\s\"'“”，。；,;<>()（）一-鿿]{6,64})",
    re.IGNORECASE,
)
_ADD = re.compile("[加的搜]")
_REACH = 40


def cued(text: str) -> Iterator[Item]:
    """Such items in `text`, in order of their start within each type."""
    low = text.lower()
    if "生" in low or "born" in low or "birth" in low or "dob" in low or "d.o.b" in low:
        yield from _births(text)
    if "信" in low or "wechat" in low or "weixin" in low or "vx" in low or "wx" in low:
        for match in _WECHAT.finditer(text):
            told = (match["told"] or "").strip() or re.search(r"[0-9_]", match["name"])
            if told or _ADD.search(text, max(0, match.start() - 4), match.start()):
                yield Item("WECHAT", match.start("name"), match.end("name"), LIKELY)
    if "passw" in low or "passphrase" in low or "pwd" in low or "密码" in low or "口令" in low:
        for match in _PASSWORD.finditer(text):
            if re.search(r"[0-9!@#$%^&*?]", match[1]):
                yield Item(SECRET, match.start(1), match.end(1), LIKELY)


def _births(text: str) -> Iterator[Item]:
    for date in _DATE.finditer(text):
        before = text[max(0, date.start() - _REACH) : date.start()].lower()
        if _BORN.search(before) or _BORN_AFTER.match(text, date.end()):
            yield Item("DATE_OF_BIRTH", date.start(), date.end(), LIKELY)
