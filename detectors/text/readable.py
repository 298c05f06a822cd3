"""Decoded bytes as text that a person wrote: UTF-8, UTF-16 or GB 18030, nearly all of it printable."""

from __future__ import annotations

import codecs
import re

_UTF_16_LE = codecs.getdecoder("utf-16-le")
_UTF_16_BE = codecs.getdecoder("utf-16-be")
_GB_18030 = codecs.getdecoder("gb18030")
"""Found here and not when first used: the worker that reads what strangers write can open no file by then."""
_LEAST = 6
_COMMON = re.compile("[\t\n\r -~\u2013-\u2026\u3001-\u3011\u4e00-\u9fa5\uff01-\uff5e]")
_LEAST_WIDE = 24
_SAMPLE = 64
"""Bytes by which another encoding is told."""
_COMMON_GB = re.compile(rb"(?:[\x20-\x7e\r\n\t]|[\xb0-\xd7][\xa1-\xfe]|[\xa1-\xa3][\xa1-\xfe])+")
"""ASCII, and of GB 2312 its signs and the ideographs of its first level, which ordinary Chinese is made of."""


def readable(raw: bytes) -> str | None:
    """The bytes as text when at least nine in ten characters are printable, else None."""
    text = raw.decode("utf-8", "ignore")
    if len(text.encode()) * 10 < len(raw) * 9 or "\0" in text[:64]:
        text = _otherwise(raw)
    if len(text) < _LEAST:
        return None
    shown = sum(char.isprintable() or char.isspace() for char in text)
    return text if shown * 10 >= len(text) * 9 else None


def _otherwise(raw: bytes) -> str:
    """Another encoding's reading of bytes that are no UTF-8; empty where none is likely."""
    for decoded, zeros in ((_UTF_16_LE, raw[1:_SAMPLE:2]), (_UTF_16_BE, raw[0:_SAMPLE:2])):
        if zeros.count(0) * 2 > len(zeros) or (
            len(raw) >= _LEAST_WIDE and _ordinary(decoded(raw[:_SAMPLE], "ignore")[0])
        ):
            return decoded(raw, "ignore")[0].replace("\0", "")
    return _GB_18030(raw, "ignore")[0] if _COMMON_GB.fullmatch(raw) else ""


def _ordinary(text: str) -> bool:
    """True where all but one in twenty characters are common ideographs, their punctuation, or ASCII."""
    return len(_COMMON.findall(text)) * 20 > 19 * len(text)


def worded(text: str | None) -> str | None:
    """The text where eight in ten characters are letters or blanks."""
    if text is None or len(text) < 8:
        return None
    return text if sum(char.isalpha() or char == " " for char in text) * 10 >= 8 * len(text) else None
