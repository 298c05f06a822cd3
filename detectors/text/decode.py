"""Encoded parts of a text, read: escapes where they stand, runs of base64, base32, hex, binary and decimal codes.

Depth is at most two, runs, input and output are capped, and only output that reads as text counts: the wrapper itself
says nothing, since harmless base64 is common.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectors.base import Span
from detectors.text.escapes import composed, unescaped
from detectors.text.normalize import MAX_RUNS, TextView, clean
from detectors.text.readable import readable, worded

MAX_DEPTH = 2
MAX_RUN = 8_192
"""Characters of one encoded run that are read; the rest of the run is ignored."""
MAX_OUTPUT = 32_768
"""Decoded characters of one text, over all runs and both depths."""
_NEXT_LINE = r"[ \t>]{0,8}\r?\n[ \t>]{0,8}[A-Za-z0-9+/_-]"
_BASE64 = re.compile(
    rf"[A-Za-z0-9+/_-]{{20,}}(?:(?:{_NEXT_LINE}{{16,}}){{1,255}}(?:{_NEXT_LINE}{{2,15}}={{0,2}}(?!\S))?)?"
)
"""Lines of an encoded block follow one another, the last one may be short."""
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[ :]?){12,}")
_LISTED = re.compile(
    r"(?<![0-9A-Za-z.])(?:(?P<hex>(?:(?:0x)?[0-9A-Fa-f]{2}[ ,;:-]{1,2}){7,}(?:0x)?[0-9A-Fa-f]{2})"
    r"|(?P<binary>(?:[01]{8}[ ,]{0,2}){6,})|(?P<decimal>(?:[0-9]{2,3}[ ,;]{1,2}){9,}[0-9]{2,3}))(?![0-9A-Za-z])"
)


def _class_table(characters: str) -> bytes:
    """Byte -> `w` where it is one of the characters, else a blank."""
    return bytes(119 if chr(code) in characters else 32 for code in range(256))


_IN_BASE64 = _class_table(f"{string.ascii_letters}{string.digits}+/_-")
_IN_HEX = _class_table(f"{string.hexdigits} :")
_IN_LIST = _class_table(f"{string.hexdigits}x ,;:-")
_HEX_ONLY = re.compile(r"[0-9A-Fa-f]+")
_BASE32 = re.compile(r"[A-Z2-7]+")
_NUMBERS = {"hex": (re.compile(r"[0-9A-Fa-f]{2}(?![0-9A-Fa-fx])"), 16), "binary": (re.compile("[01]{8}"), 2),
            "decimal": (re.compile("[0-9]{2,3}"), 10)}  # fmt: skip
_TAGS = re.compile("[\U000e0020-\U000e007e]{4,}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{8,}")
_HIDDEN = re.compile("[\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
"""In the basic plane: a class that reaches beyond it is searched for many times slower."""
_WIDE = 0xFF00
"""Forms as wide as ideographs follow it in the order of ASCII, which follows the space."""


class Undone(NamedTuple):
    """A text once decoded."""

    plain: TextView | None
    """The text itself with its escapes read and without its encoded runs; None where there are neither."""
    inside: tuple[TextView, ...]
    """What each run says; every character maps to the whole run that it came from."""


def undone(text: str) -> Undone:
    """The readings of a text's encoded parts, clean."""
    source, escaped = _source(text)
    inside: list[TextView] = []
    runs = list(_runs(source.text))
    budget = MAX_OUTPUT
    for span, plain in [*((source.span(span.start, span.end), plain) for span, plain in runs), *_tagged(text)]:
        layer: str | None = plain
        for _ in range(MAX_DEPTH):
            if layer is None or budget <= 0:
                break
            layer = layer[:budget]
            budget -= len(layer)
            read = unescaped(layer)
            layer = layer if read is None else read.text
            shown = clean(layer).text
            starts, ends = array("I", [span.start]) * len(shown), array("I", [span.end]) * len(shown)
            inside.append(TextView("decoded", shown, starts, ends))
            layer = "\n".join(deeper for _, deeper in _runs(layer[:MAX_RUN])) or None
    if not escaped and not runs:
        return Undone(None, tuple(inside))
    return Undone(_without(source, [span for span, _ in runs], "decoded" if escaped else "clean"), tuple(inside))


def tagged(text: str) -> bool:
    """True where the text holds a run of Unicode tag characters or variation selectors, which show nothing."""
    codes = _codes(text)
    shown = ((codes < 0xFE00) | (codes > 0xFE0F)) & (codes < 0xE0020)  # many times cheaper than the pattern
    return not shown.all() and _TAGS.search(text) is not None


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _source(text: str) -> tuple[TextView, bool]:
    """The text without what is invisible, wide forms as ASCII, escapes read to the depth; whether there were any."""
    view, escaped = _visible(text), False
    for _ in range(MAX_DEPTH):
        read = unescaped(view.text)
        if read is None:
            break
        view, escaped = composed(view, read), True
    return view, escaped


def _visible(text: str) -> TextView:
    """The text with wide forms as ASCII and without invisible characters of the basic plane."""
    if text.isascii():
        return TextView("decoded", text)
    codes = _codes(text)
    codes = np.where((codes > _WIDE) & (codes < _WIDE + 0x5F), codes - _WIDE + 0x20, codes)
    hidden = [match.start() for match in _HIDDEN.finditer(text)]
    places = np.delete(np.arange(len(codes), dtype=np.uint32), hidden)
    read = codes[places].tobytes().decode("utf-32-le", "surrogatepass")
    if not hidden:
        return TextView("decoded", read)
    return TextView("decoded", read, array("I", places.tobytes()), array("I", (places + 1).tobytes()))


def _without(source: TextView, spans: list[Span], name: str) -> TextView:
    """The clean reading of `source` with a space for each of these runs."""
    pieces: list[str] = []
    places = array("I")
    done = 0
    for span in sorted(spans):
        if span.start < done:
            done = max(done, span.end)
            continue
        pieces += (source.text[done : span.start], " ")
        places.extend(range(done, span.start + 1))
        done = span.end
    pieces.append(source.text[done:])
    places.extend(range(done, len(source.text)))
    cut = TextView(name, "".join(pieces), places, array("I", [index + 1 for index in places]))
    read = clean(cut.text)
    return composed(composed(source, cut), TextView(name, read.text, read.starts, read.ends))


def _tagged(text: str) -> Iterator[tuple[Span, str]]:
    if text.isascii() or not tagged(text):
        return
    for match, _ in zip(_TAGS.finditer(text), range(MAX_RUNS), strict=False):
        yield Span(match.start(), match.end()), _untag(match[0][:MAX_RUN])


def _runs(text: str) -> Iterator[tuple[Span, str]]:
    """Up to MAX_RUNS runs that decode to readable text, with where they stand."""
    left = MAX_RUNS
    shape = text.encode("ascii", "replace")
    for encoding in _ENCODINGS:
        for match in _matches(encoding, text, shape.translate(encoding.table)):
            if not left:
                return
            if (plain := encoding.read(match)) is not None:
                left -= 1
                yield Span(match.start(), match.end()), plain


class _Encoding(NamedTuple):
    """One encoding of text."""

    pattern: re.Pattern[str]
    table: bytes
    """Byte -> `w` for the characters of the pattern."""
    least: int
    """Characters of a run without another that a match begins in."""
    beyond: int
    """Characters that a match may go on behind that run. Where it may, each run holds a match."""
    read: Callable[[re.Match[str]], str | None]


def _matches(encoding: _Encoding, text: str, classes: bytes) -> Iterator[re.Match[str]]:
    """The matches of the encoding's pattern; `classes` is the text translated by its table."""
    run = b"w" * encoding.least
    found = classes.find(run)
    while found >= 0:
        start = classes.rfind(b" ", 0, found) + 1
        end = classes.find(b" ", found)
        end = len(classes) if end < 0 else end
        stop = end + encoding.beyond
        while start < end and (match := encoding.pattern.search(text, start, stop)) and match.start() < end:
            yield match
            start = match.end()
        found = classes.find(run, max(start, end))


def _base64(match: re.Match[str]) -> str | None:
    run = "".join(match[0][:MAX_RUN].replace(">", " ").split())
    if _HEX_ONLY.fullmatch(run):
        return None
    if _BASE32.fullmatch(run) and (read := _base32(run)) is not None:
        return read
    run = run.rstrip("=").replace("-", "+").replace("_", "/")
    run = run[: len(run) - (len(run) % 4 == 1)]
    try:
        return readable(base64.b64decode(run + "=" * (-len(run) % 4)))
    except (binascii.Error, ValueError):
        return None


def _base32(run: str) -> str | None:
    try:
        return readable(base64.b32decode(run + "=" * (-len(run) % 8)))
    except (binascii.Error, ValueError):
        return None


def _hex(match: re.Match[str]) -> str | None:
    digits = match[0][:MAX_RUN].replace(":", "").replace(" ", "")
    return readable(bytes.fromhex(digits[: len(digits) & ~1]))


def _numbers(match: re.Match[str]) -> str | None:
    """The text of a list of character codes; lists of numbers are common, so only words count."""
    unit, base = _NUMBERS[match.lastgroup or ""]
    codes = [int(each, base) for each in unit.findall(match[0][:MAX_RUN])]
    return worded(readable(bytes(codes))) if max(codes) < 256 else None


_ENCODINGS = (
    _Encoding(_BASE64, _IN_BASE64, 20, MAX_RUN, _base64),
    _Encoding(_HEX, _IN_HEX, 24, 0, _hex),
    _Encoding(_LISTED, _IN_LIST, 23, 0, _numbers),
)


def _untag(run: str) -> str:
    """Text smuggled in tag characters, which mirror ASCII at U+E0000, or in variation selectors, one for each byte."""
    if run[0] >= "\U000e0100" or run[0] < "\U000e0000":
        raw = bytes([ord(char) - (0xE00F0 if char > "\uffff" else 0xFE00) for char in run])
        return raw.decode("utf-8", "ignore")
    return "".join(chr(ord(char) - 0xE0000) for char in run)
