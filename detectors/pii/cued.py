"""Items that only a word nearby tells from other text: dates of birth and passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator

from detectors.pii.item import LIKELY, SECRET, PiiItem
from detectors.pii.places import Places

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
_PASSWORD = re.compile(
    r"(?:password|passwd|passphrase|\bpwd|密码|口令)(?: ?(?:is|was|是|为|:|=|：)+)[ \"'“]{0,2}"
    r"([^\s\"'“”，。；,;<>()（）一-鿿]{6,64})"
)
_STRONG = re.compile("[0-9!@#$%^&*?]")
_DIGIT = re.compile("[0-9]")
_REACH = 40
_BETWEEN = 24
"""Code points between a word for birth and the date behind it, as in _BORN."""


def cued(text: str, low: str, places: Places) -> Iterator[PiiItem]:
    """Such items in `text`, in order of their start within each type; `low` is it in small letters."""
    if places.birth or low.endswith("生"):
        yield from _births(text, low, places.birth)
    for match in _matches_at(_PASSWORD, low, places.password):
        if _STRONG.search(match[1]):
            yield PiiItem(SECRET, match.start(1), match.end(1), LIKELY)


def _matches_at(pattern: re.Pattern[str], low: str, words: list[tuple[int, int]]) -> Iterator[re.Match[str]]:
    """Matches that begin at one of these words, in order, without overlap."""
    offset = 0
    for start, _ in words:
        if start >= offset and (match := pattern.match(low, start)):
            offset = match.end()
            yield match


def _births(text: str, low: str, words: list[tuple[int, int]]) -> Iterator[PiiItem]:
    offset = 0
    for start, end in [*words, (len(text), len(text))]:
        first, last = max(offset, start - _REACH), end + _BETWEEN
        if _DIGIT.search(text, first, last + _REACH) is None:
            continue
        for date in _DATE.finditer(text, first, last + _REACH):
            if date.start() > last:
                break
            offset = date.end()
            before = low[max(0, date.start() - _REACH) : date.start()]
            if _BORN.search(before) or _BORN_AFTER.match(text, offset):
                yield PiiItem("DATE_OF_BIRTH", date.start(), offset, LIKELY)
