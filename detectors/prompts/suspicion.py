"""Cheap tests on a joined batch for texts that deserve a loose or a decoded view.

Bytes are mapped to a few classes and searched with `bytes.find`, about 5 ns a character for all
tests together, so an ordinary prompt never pays for a regular expression.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import AnyStr

from detectors.prompts.grams import BREAK

_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_LEET = b"013457@$!|"
_SEPARATORS = b" .-_*|~/,+;:^&"
_SHAPE = bytes(
    97 if byte in _LETTERS else 48 if byte in _LEET else 32 if byte in _SEPARATORS or byte in b"\n\t\r" else byte
    for byte in range(256)
)
_RUN = bytes(119 if chr(byte).isalnum() or byte in b"+/_-:" else 32 for byte in range(128)) + bytes(128)
_SPELLED = ((b" a a ", b"a a a a"), (b"a0a", b"a0a"), (b" 0a", b" 0aaa"))
_ALONE_AFTER, _ALONE_BEFORE = (b"a ", b"0 "), (b" a", b" 0")
_MARKED = (b"* *", b"></")
"""What is looked for, behind a part of it that ordinary text lacks and that is found to be missing sooner."""
_ALONE = b" ? "
"""A character beyond ASCII, here `?`, with separators around it."""
_ENCODED_RUN = b"w" * 20
_APART = b" ,;:-"
_NUMBERS = bytes(100 if chr(byte) in "0123456789abcdef" else 44 if byte in _APART else byte for byte in range(256))
_LEFT_OUT = _APART + b"x="
_DIGITS = b"d" * 16
"""What a list of codes holds once what stands between them is left out."""
_LISTED = (
    b"dd," * 6, b"dd,," * 6, b"dxdd,dxdd", b"dxdd,,dxdd", b"ddd,ddd,", b"ddd,,ddd,", b"dddddddd,dddddddd", b"=dd=dd=dd",
)  # fmt: skip
"""Lists of character codes, in hex, decimal or binary: a digit is `d` and what may stand between two is a comma."""
_ESCAPES = (
    (b"%", (b"%",)),
    (b"&", (b"&#", b"&amp;")),
    (b"\\", (b"\\x", b"\\u", b"\\0", b"\\1", b"\\2", b"\\3")),
    (b"+", (b"u+",)),
)
"""What escapes begin with, behind a sign of it that most texts lack."""
_SPACED_CJK = re.compile(r"[\u4e00-\u9fff][\s.\-_*|~·/,+;:^&]{1,2}[\u4e00-\u9fff][\s.\-_*|~·/,+;:^&]")


def spelled_at(shape: bytes, joined: str) -> Iterator[int]:
    """Offsets of letters spaced out or mixed with leetspeak signs; `shape` is ASCII of `joined`."""
    classes = shape.translate(_SHAPE)
    for part, needle in _SPELLED:
        if part in classes:
            yield from _all(classes, needle, 16, joined)
    for offset in _all(classes, b" 0 ", 2, joined):
        # its neighbours stand alone too
        if classes[offset + 3 : offset + 5] in _ALONE_AFTER and classes[max(0, offset - 2) : offset] in _ALONE_BEFORE:
            yield offset
    for needle in _MARKED:
        if needle[-1:] in shape:
            yield from _all(shape, needle, 16, joined)
    if not joined.isascii():
        apart = itertools.chain(_all(classes, _ALONE, 2, joined), _all(joined, "·", 1, joined))
        for offset in (offset - back for offset in apart for back in (1, 2) if offset >= back):
            if _SPACED_CJK.match(joined, offset):
                yield offset


def encoded_at(shape: bytes, joined: str) -> Iterator[int]:
    """Offsets of long unbroken runs, escapes, and lists of character codes."""
    yield from _all(shape.translate(_RUN), _ENCODED_RUN, 64, joined)
    for sign, needles in _ESCAPES:
        if sign in shape:
            for needle in needles:
                yield from _all(shape, needle, 64, joined)
    if _DIGITS in shape.translate(_NUMBERS, _LEFT_OUT):
        numbers = shape.translate(_NUMBERS)
        for needle in _LISTED:
            yield from _all(numbers, needle, 64, joined)


def _all(where: AnyStr, needle: AnyStr, stride: int, joined: str) -> Iterator[int]:
    """Offsets of a needle, in each text at most one per stride characters; `where` is `joined` or a table of it."""
    offset = where.find(needle)
    while offset >= 0:
        yield offset
        # a text must not hide what the next one of its batch holds
        text_end = joined.find(BREAK, offset, offset + stride)
        offset = where.find(needle, offset + stride if text_end < 0 else text_end)
