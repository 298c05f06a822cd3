"""A text as the letters that count when it is compared: case, accents, width, spaces and punctuation do not.

Letters and digits after NFKD and case folding. An ideograph says about as much as four letters and counts as four, so
one length of run serves English and Chinese alike.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

MAX_GAP = 64
"""More characters than this between two letters end a run: it bounds what a stream holds back."""
WIDE = 4
"""Letters that one ideograph counts as."""
_PART = 1 << 21


@lru_cache(maxsize=1 << 16)
def letters(character: str) -> tuple[int, ...]:
    """The letters of one character, as numbers; none for spaces, punctuation, accents and what cannot be seen."""
    if character.isascii():
        return (ord(character.lower()),) if character.isalnum() else ()
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    found: list[int] = []
    for one in plain:
        if one.isalnum():
            found += [ord(one) + _PART * part for part in range(WIDE if _ideograph(one) else 1)]
    return tuple(found)


def stretches(text: str) -> Iterator[list[int]]:
    """The letters of a text, cut at gaps of more than ``MAX_GAP`` other characters."""
    found, gap = list[int](), 0
    for character in text:
        read = letters(character)
        gap = 0 if read else gap + 1
        if gap == MAX_GAP + 1 and found:
            yield found
            found = []
        found += read
    if found:
        yield found


def _ideograph(character: str) -> bool:
    return "\u2e80" <= character <= "\u9fff" or character >= "\U00020000"
