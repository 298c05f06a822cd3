"""Rows of tokens that no person writes, as a gradient search appends to a request (GCG: Zou et al. 2023).

A model of characters takes them for code or formulas. What tells them apart: within a few words' length they hold many
different signs, each about once, and brackets that do not match; code and formulas repeat few signs and close what they
open.
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
_KIND, _OPEN, _BOUND = 2, 4, 10
"""Points for each kind of sign and each bracket without its like; every sign costs one. Chosen on training rows: of
the benign ones of the data pack 1 in 2,500 reaches the bound."""


def salad(text: str) -> tuple[int, int] | None:
    """Where the first row of tokens lies, `None` where there is none. Linear in the text, whatever it holds."""
    for number, match in enumerate(_DENSE.finditer(text)):
        if number == MAX_WINDOWS:
            break
        start = match.start()
        end = start + len(text[start : start + WINDOW].split("\n", 1)[0])
        if end - start >= LEAST and points(text, start, end) >= _BOUND:
            return start, end
    return None


def points(text: str, start: int, end: int) -> int:
    """How little the row `[start, end)` looks like writing, code or a formula."""
    signs = [char for char in text[start:end] if char in _SIGNS]
    low = text.rfind("\n", max(0, start - _AROUND), start) + 1 or max(0, start - _AROUND)
    high = text.find("\n", end, end + _AROUND)
    line = text[low : end + _AROUND if high < 0 else high]
    lone = sum(abs(line.count(pair[0]) - line.count(pair[1])) for pair in _PAIRS)
    return _KIND * len(set(signs)) + _OPEN * min(lone, 3) - len(signs)
