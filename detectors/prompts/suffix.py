"""Adversarial suffixes: rows of tokens that a gradient search appends to a request (GCG: Zou et al. 2023).

A model of characters takes them for code or formulas. Within a few words' length they hold many different signs, each
about once, and brackets that do not match. So does a dense line of code, so a row counts only where it ends a request
of plain words on one line, and then it is one more sign beside what the scorer makes of that request.
"""

from __future__ import annotations

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
_ASKED = 24
"""Letters of plain words that stand before the row."""
_TAIL, _BEFORE = 240, 400
"""The row begins at most so many characters before the end of the text, and so many before it are looked at."""
_PLAIN_SIGNS = 0.05
"""Share of signs other than of writing in what stands before the row, at most."""
_WRITING = frozenset(".,!?'\"-;:")
_KIND, _OPEN = 2, 4
"""Points for each kind of sign, and for each bracket without its partner; every sign costs one."""
_BOUND = 10
"""Points of an adversarial suffix. Chosen on training rows: 1 in 2,500 of the benign ones of the data pack has them."""


def adversarial_suffix(text: str) -> tuple[int, int] | None:
    """Range of the row of tokens that a request ends with, `None` where there is none. Linear in any text."""
    for number, match in enumerate(_DENSE.finditer(text, max(0, len(text) - _TAIL))):
        if number == MAX_WINDOWS:
            break
        start = match.start()
        end = start + len(text[start : start + WINDOW].split("\n", 1)[0])
        if end - start >= LEAST and points(text, start, end) >= _BOUND and _asks(text, start):
            return start, end
    return None


def _asks(text: str, end: int) -> bool:
    """True where the line holds words of a request before `end`, as people write them."""
    start = max(0, end - _BEFORE, text.rfind("\n", 0, end) + 1)
    before = text[start:end]
    signs = sum(char in _SIGNS and char not in _WRITING for char in before)
    return sum(map(str.isalpha, before)) >= _ASKED and signs <= _PLAIN_SIGNS * len(before)


def points(text: str, start: int, end: int) -> int:
    """Points of the row `[start, end)`: more, the less it looks like writing, code or a formula."""
    signs = [char for char in text[start:end] if char in _SIGNS]
    low = text.rfind("\n", max(0, start - _AROUND), start) + 1 or max(0, start - _AROUND)
    high = text.find("\n", end, end + _AROUND)
    line = text[low : end + _AROUND if high < 0 else high]
    lone = sum(abs(line.count(pair[0]) - line.count(pair[1])) for pair in _PAIRS)
    return _KIND * len(set(signs)) + _OPEN * min(lone, 3) - len(signs)
