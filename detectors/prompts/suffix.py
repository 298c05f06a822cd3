"""Adversarial suffixes: rows of tokens that a gradient search appends to a request (GCG: Zou et al. 2023).

A model of characters takes them for code or formulas. Within a few words' length they hold many different signs, each
about once, and brackets that do not match. So does a dense line of code, so a row counts only where it ends a text
whose last line begins with a request in plain words, and then it is one more sign beside what the scorer makes of it.
"""

from __future__ import annotations

import itertools
import re
import string

WINDOW = 48
"""Characters that are judged at a time, within one line."""
LEAST = 16
"""A shorter row says too little."""
MAX_WINDOWS = 64
"""Rows of one text that are judged."""
_AROUND = 200
"""Characters to either side in which a bracket may be closed."""
_RARE = r"!#$%&*+/<=>@\[\\\]^_`{|}~;"
_DENSE = re.compile(rf"[{_RARE}](?:[^\n{_RARE}]{{0,14}}[{_RARE}]){{3}}")
_SIGNS = frozenset(string.punctuation)
_PAIRS = ("()", "[]", "{}")
_ASKED = 20
"""Characters of plain words that the line begins with."""
_TAIL, _BEFORE, _AFTER = 240, 400, 48
"""The row begins at most so many characters before the end of the text, so many before it are looked at, and so many
may follow it on its line."""
_WORD = re.compile(r"[\"'(]?[^\W\d_]+(?:['-][^\W\d_]+)*[.,!?;:)\"']*")
_ENDING = 3
"""So many words at the end say that the row is what is asked about."""
_KIND, _OPEN = 2, 4
"""Points for each kind of sign, and for each bracket without its partner; every sign costs one."""
_BOUND = 10
"""Points of an adversarial suffix. Chosen on training rows: no benign one of the data pack has them in such a place."""


def adversarial_suffix(text: str) -> tuple[int, int] | None:
    """Range of the row of tokens that a request ends with, `None` where there is none. Linear in any text."""
    text = text.rstrip()
    ending = text[-_AFTER:].split()[-_ENDING:]
    if all(map(_WORD.fullmatch, ending)):
        return None
    low = max(0, len(text) - _TAIL, text.rfind("\n") + 1)
    for number, match in enumerate(_DENSE.finditer(text, low)):
        if number == MAX_WINDOWS:
            break
        start = match.start()
        end = min(start + WINDOW, len(text))
        last = end + _AFTER >= len(text)
        if last and end - start >= LEAST and points(text, start, end) >= _BOUND and _asks(text, start):
            return start, end
    return None


def _asks(text: str, end: int) -> bool:
    """True where the line begins with words of a request, as people write them, before `end`."""
    line = text[max(0, end - _BEFORE, text.rfind("\n", 0, end) + 1) : end]
    plain = itertools.takewhile(_WORD.fullmatch, line.split())
    return sum(map(len, plain)) >= _ASKED


def points(text: str, start: int, end: int) -> int:
    """Points of the row `[start, end)`: more, the less it looks like writing, code or a formula."""
    signs = [char for char in text[start:end] if char in _SIGNS]
    low = text.rfind("\n", max(0, start - _AROUND), start) + 1 or max(0, start - _AROUND)
    high = text.find("\n", end, end + _AROUND)
    line = text[low : end + _AROUND if high < 0 else high]
    lone = sum(abs(line.count(pair[0]) - line.count(pair[1])) for pair in _PAIRS)
    return _KIND * len(set(signs)) + _OPEN * min(lone, 3) - len(signs)
