"""Readings of a text whose layout was changed after it was delivered, so that its mark is looked for as it was drawn.

A copy is saved with other ends of lines, quoted, wrapped, put into a list or set in bold. None of that changes a word,
all of it changes tokens. Each step is undone where the text shows signs of it; what cannot be told for certain, such as
a line that ends where the column does, is read both ways. The text as it stands is always among the readings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

_LINE_END = re.compile(r"\r\n?|[\x85\u2028\u2029]")
_UNSEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_SPACES = re.compile("[\t\u00a0\u2000-\u200a\u202f\u3000]")
_QUOTE = re.compile(r" {0,3}(?:[>|] ?)+")
_ITEM = re.compile(r" {0,12}(?:[-*+•‣▪]|[0-9]{1,4}[.)]|[a-zA-Z][.)]|#{1,6}|\[[ x]\])(?: {1,4}\[[ xX]\])? {1,4}")
_EMPHASIS = re.compile(
    r"(?<![*\w])(\*{1,3})(?=\S)|(?<=\S)(\*{1,3})(?![*\w])|(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)|~~|`+"
)
_WORD = re.compile(r"\S+")
_SHARE = 0.6
"""Of the lines with a sign of quotation from which on it is one and not the text's own."""
_LEAST_WIDTH = 12
"""Columns below which a line was not wrapped."""


class _TextLine(NamedTuple):
    """One line without what stands before its text. `width` is its length with that; `begins` where it cannot go on
    from the line before: it is an item or a heading, or stands behind a blank line."""

    text: str
    width: int
    begins: bool


def readings(text: str) -> tuple[str, ...]:
    """The text as it stands, then with its layout undone in each way that it may have come about; none twice."""
    plain = _UNSEEN.sub("", _SPACES.sub(" ", _LINE_END.sub("\n", text))).strip("\n")
    rows = _unquoted(plain.split("\n"))
    lines = list(_lines(row.rstrip(" ") for row in rows))
    column = max(line.width for line in lines)
    undone = [
        _put_together(lines, lambda before, line: "\n"),
        _put_together(lines, lambda before, line: " " if _wrapped(before, line, column) else "\n"),
        _put_together(lines, lambda before, line: " " if before.text and line.text and not line.begins else "\n"),
        _unfolded(rows),
    ]
    bare = [_EMPHASIS.sub("", one) for one in undone]
    return tuple(dict.fromkeys((text, plain, *undone, *bare)))


def _unquoted(lines: Sequence[str]) -> Sequence[str]:
    """The lines without signs of quotation, as often as most of them have one."""
    written = [line for line in lines if line.strip()]
    quoted = sum(_QUOTE.match(line) is not None for line in written)
    return [_QUOTE.sub("", line, count=1) for line in lines] if quoted > _SHARE * len(written) else lines


def _lines(rows: Iterable[str]) -> Iterator[_TextLine]:
    blank = True
    for row in rows:
        item = _ITEM.match(row)
        text = row[item.end() :] if item else row.lstrip(" ")
        yield _TextLine(text, len(row), blank or item is not None)
        blank = not text


def _put_together(lines: Sequence[_TextLine], between: Callable[[_TextLine, _TextLine], str]) -> str:
    joined = (f"{between(before, line)}{line.text}" for before, line in pairwise(lines))
    return lines[0].text + "".join(joined)


def _wrapped(before: _TextLine, line: _TextLine, column: int) -> bool:
    """True where the first word of `line` would not have fitted before it, as programs wrap that break at blanks."""
    word = _WORD.match(line.text)
    if not before.text or line.begins or word is None or column < _LEAST_WIDTH:
        return False
    return before.width + 1 + len(word[0]) > column


def _unfolded(rows: Sequence[str]) -> str:
    """Lines put together as they are where the column ends, as programs fold that break anywhere."""
    column = max(map(len, rows))
    joined = (f"{'' if len(before) == column > _LEAST_WIDTH else chr(10)}{row}" for before, row in pairwise(rows))
    return rows[0] + "".join(joined)
