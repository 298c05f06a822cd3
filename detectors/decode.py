"""The `decoded` views: what base64, hex, percent and entity encoded runs of a text say.

Depth is at most two, runs, input and output are capped, and only output that reads as text counts:
the wrapper itself says nothing, since harmless base64 is common.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import string
from array import array
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from detectors.base import Span
from detectors.normalize import MAX_RUNS, View, clean

MAX_DEPTH = 2
MAX_RUN = 8_192
"""Characters of one encoded run that are read; the rest of the run is ignored."""
MAX_OUTPUT = 32_768
"""Decoded characters of one text, over all runs and both depths."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[ :]?){12,}")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2}[^\s%]{0,64}){2,}")
_ENTITY = re.compile(r"(?:&#[xX]?[0-9A-Fa-f]{1,6};[ ]?){4,}")
_IN_BASE64, _IN_HEX = (
    bytes(119 if chr(code) in held else 32 for code in range(256))
    for held in (f"{string.ascii_letters}{string.digits}+/_-", f"{string.hexdigits} :")
)
"""A byte to `w` where the pattern's characters hold it, else to a blank."""
_HEX_ONLY = re.compile(r"[0-9A-Fa-f]+")
_TAGS = re.compile("[\U000e0020-\U000e007e]{4,}")


def decoded(text: str) -> tuple[View, ...]:
    """Clean views of every encoded run; each character maps to the whole run it came from."""
    found: list[View] = []
    budget = MAX_OUTPUT
    for span, plain in _runs(text):
        layer: str | None = plain
        for _ in range(MAX_DEPTH):
            if layer is None or budget <= 0:
                break
            shown = clean(layer[:budget]).text
            budget -= len(layer)
            count = len(shown)
            starts, ends = array("I", [span.start]) * count, array("I", [span.end]) * count
            found.append(View("decoded", shown, starts, ends))
            layer = "\n".join(inner for _, inner in _runs(layer[:MAX_RUN])) or None
    return tuple(found)


def tagged(text: str) -> bool:
    """Whether the text holds a run of Unicode tag characters, which show nothing and mirror ASCII."""
    return _TAGS.search(text) is not None


def _runs(text: str) -> Iterator[tuple[Span, str]]:
    """Up to MAX_RUNS runs that decode to readable text, with where they stand."""
    left = MAX_RUNS
    shape = text.encode("ascii", "replace")
    for match in _matches(_BASE64, text, shape.translate(_IN_BASE64), 20):
        if left and (plain := _base64(match[0][:MAX_RUN])) is not None:
            left -= 1
            yield Span(match.start(), match.end()), plain
    for pattern, reader, found in (
        (_HEX, _hex, _matches(_HEX, text, shape.translate(_IN_HEX), 24)),
        (_PERCENT, _percent, _matches_at(_PERCENT, text, "%")),
        (_ENTITY, html.unescape, _matches_at(_ENTITY, text, "&#")),
    ):
        for match in found:
            if not left:
                return
            start = _token_start(text, match.start()) if pattern is _PERCENT else match.start()
            run = text[start : min(match.end(), start + MAX_RUN)]
            if (plain := reader(run)) is not None and plain != run:
                left -= 1
                yield Span(start, match.end()), plain
    if not text.isascii():
        for match, _ in zip(_TAGS.finditer(text), range(left), strict=False):
            yield Span(match.start(), match.end()), _untag(match[0][:MAX_RUN])


def _matches(pattern: re.Pattern[str], text: str, classes: bytes, least: int) -> Iterator[re.Match[str]]:
    """The pattern's matches, each within one run of at least `least` characters of its class, `w` in `classes`."""
    at = classes.find(b"w" * least)
    while at >= 0:
        start = classes.rfind(b" ", 0, at) + 1
        end = classes.find(b" ", at)
        end = len(classes) if end < 0 else end
        yield from pattern.finditer(text, start, end)
        at = classes.find(b"w" * least, end)


def _matches_at(pattern: re.Pattern[str], text: str, prefix: str) -> Iterator[re.Match[str]]:
    """The matches of a pattern, each of which begins with this prefix."""
    at = text.find(prefix)
    while at >= 0:
        match = pattern.match(text, at)
        if match is not None:
            yield match
        at = text.find(prefix, at + 1 if match is None else match.end())


def _token_start(text: str, at: int) -> int:
    """Start of the word that `at` stands in, at most 64 characters back."""
    low = max(0, at - 64)
    while at > low and not text[at - 1].isspace():
        at -= 1
    return at


def _base64(run: str) -> str | None:
    if _HEX_ONLY.fullmatch(run):
        return None
    run = run.replace("-", "+").replace("_", "/")
    run = run[: len(run) - (len(run) % 4 == 1)]
    try:
        return _readable(base64.b64decode(run + "=" * (-len(run) % 4)))
    except (binascii.Error, ValueError):
        return None


def _hex(run: str) -> str | None:
    digits = run.replace(":", "").replace(" ", "")
    return _readable(bytes.fromhex(digits[: len(digits) & ~1]))


def _percent(run: str) -> str | None:
    # a lone surrogate has no UTF-8; what stands for it is left out as unreadable
    return _readable(unquote_to_bytes(run.encode("utf-8", "surrogatepass")))


def _untag(run: str) -> str:
    """Text smuggled in Unicode tag characters, which mirror ASCII at U+E0000."""
    return "".join(chr(ord(char) - 0xE0000) for char in run)


def _readable(raw: bytes) -> str | None:
    """The bytes as UTF-8 text when at least nine in ten characters are printable."""
    text = raw.decode("utf-8", "ignore")
    if len(text.encode()) * 10 < len(raw) * 9 or len(text) < 6:
        return None
    shown = sum(char.isprintable() or char.isspace() for char in text)
    return text if shown * 10 >= len(text) * 9 else None
