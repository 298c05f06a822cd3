"""Names of people in Latin script: runs of capitalised words, judged by lists of names and by the words before them.

A run is cut at words that no name holds. What is left is a name where a cue such as a title stands before it, or where
the lists know one of its parts and the others may belong to it. Small-letter names are found behind a cue only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from detectors.pii.item import GUESS, LIKELY, Item
from detectors.pii.lexicon import words
from detectors.pii.places import Places

_CAPITAL = "A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĖĘĚĜĞĠĢĤĦĨĪĬĮİĴĶĹĻĽŁŃŅŇŌŎŐŒŔŖŘŚŜŞŠŢŤŨŪŬŮŰŲŴŶŸŹŻŽ"
_LETTER = "A-Za-zÀ-ÖØ-öø-ɏ"
_JOIN = r"(?:de|da|di|del|della|der|den|dos|du|van|von|bin|ibn|al|el|la|le|ten|ter|y|zu)"
_PART = rf"[{_CAPITAL}][{_LETTER}'’-]{{0,24}}"
# the look behind comes second: a pattern that begins with a class is searched for many times faster
_RUN = re.compile(
    rf"[{_CAPITAL}](?<![{_LETTER}0-9_/@.#&-][{_CAPITAL}])[{_LETTER}'’-]{{0,24}}"
    rf"(?:(?:\. | )(?:{_JOIN} ){{0,2}}{_PART}){{0,5}}"
)
_TOKEN = re.compile(rf"[{_LETTER}'’-]+")
_BETWEEN = " \n\t:=,.\"'(<>*-"
_MAX_BETWEEN = 4
"""Signs between a cue and the name, such as the dot of a title or the quotation marks of a field."""
_FIRM = re.compile(
    r" ?(?:Inc|Ltd|LLC|GmbH|Corp|Co|Group|Agency|Company|Bank|University|College|School|Hospital|Institute|Foundation"
    r"|Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Boulevard|Court|Place|Square|Bridge|Park|River|Lake|Mountain|Island"
    r"|County|City|Museum|Theatre|Theater|Airport|Station|Award|Prize|Act|Theorem|Algorithm|Method|Law)\b"
)
_ACTS = re.compile(
    r"(?:'s |’s |,? (?:said|says|asked|told|replied|shouted|wrote|called|went|came|is|was|has|had|will|lives|works|and"
    r"|wants|who|spent|from)\b|[:,?!])"
)
_SMALL = re.compile(rf"[{_LETTER}][{_LETTER}'’-]{{1,24}}(?: [{_LETTER}][{_LETTER}'’-]{{0,24}}\.?){{0,3}}")
_REACH = 28


class _Lists(NamedTuple):
    kinds: dict[str, str]
    """g: a given name; s: a surname; a: a name that is a word too. A word that is more than one of them is the last
    of s, g, a, but s where it is a and s."""
    refused: frozenset[str]


@cache
def _lists() -> _Lists:
    given, surnames, ambiguous = words("given_names"), words("surnames"), words("word_names")
    kinds = dict.fromkeys(surnames, "s") | dict.fromkeys(given, "g") | dict.fromkeys(ambiguous, "a")
    kinds |= dict.fromkeys(ambiguous & surnames, "s")
    return _Lists(kinds, (words("words") - ambiguous) | words("not_people") | words("cues"))


def persons(text: str, places: Places) -> Iterator[Item]:
    """Names in `text`, in order of their start; score LIKELY, or GUESS for a given name alone."""
    lists = _lists()
    refused = lists.refused
    for run in _RUN.finditer(text):
        # most capitalised words begin a sentence, most of the others are a heading's
        name = run[0].lower()
        if name in refused or (" " in name and refused.issuperset(name.split(" "))):
            continue
        if name.isalpha():
            if found := _single(text, run, lists.kinds.get(name, "u")):
                yield found
        else:
            yield from _in_run(text, run)
    if places.small_name:
        at = 0
        for start, end in places.small_name:
            if start >= at and (found := _small(text, end)):
                at = found.end
                yield found


def _single(text: str, run: re.Match[str], kind: str) -> Item | None:
    """What `_judged` says of a run of one word."""
    start, end = run.span()
    if end - start < 2:
        return None
    if _cued(text, start):
        return None if _FIRM.match(text, end) else Item("PERSON", start, end, LIKELY)
    if kind != "g" or end - start < 3 or run[0].isupper() or not _alone(text, start, end):
        return None
    return None if _FIRM.match(text, end) else Item("PERSON", start, end, GUESS)


def _in_run(text: str, run: re.Match[str]) -> Iterator[Item]:
    """A run's names: what lies between the words in it that no name holds."""
    lists = _lists()
    parts: list[re.Match[str]] = []
    for token in _TOKEN.finditer(text, run.start(), run.end()):
        if not _refused(token[0], lists):
            parts.append(token)
            continue
        if parts and (found := _judged(text, parts, lists)):
            yield found
        parts = []
    if parts and (found := _judged(text, parts, lists)):
        yield found


def _refused(token: str, lists: _Lists) -> bool:
    """Whether no name holds the word: it is an ordinary one, or one with an ending such as `I'm` or `They've`."""
    low = token.lower()
    if token[0] == low[0]:
        return False
    if low in lists.refused:
        return True
    return not low.isalpha() and (low.replace("’", "'").partition("'")[0] in lists.refused or low[:2] in ("i'", "i’"))


def _judged(text: str, parts: list[re.Match[str]], lists: _Lists) -> Item | None:
    while parts and parts[-1][0][0].islower():
        parts.pop()
    while parts and parts[0][0][0].islower():
        parts.pop(0)
    if not parts:
        return None
    start, end = parts[0].start(), parts[-1].end()
    if text[end - 2 : end] in ("'s", "’s"):
        end -= 2
    if _FIRM.match(text, end):
        return None
    kinds = [_kind(part[0], lists) for part in parts if len(part[0]) > 1]
    if len(kinds) > 2 and kinds[0] == "a" and kinds[1] == "g":
        # `Call Jane Smith`: a word that some bear as a name, before a name that is whole without it
        start, kinds = parts[1].start(), kinds[1:]
    if len(kinds) > 1 and _whole(kinds):
        return Item("PERSON", start, end, LIKELY)
    if kinds and _cued(text, start):
        return Item("PERSON", start, end, LIKELY)
    if kinds == ["g"] and len(parts[0][0]) > 2 and not parts[0][0].isupper() and _alone(text, start, end):
        return Item("PERSON", start, end, GUESS)
    return None


def _whole(kinds: list[str]) -> bool:
    """Whether words of these kinds make a name of two parts and more without a cue."""
    first, rest = kinds[0], kinds[1:]
    return first == "g" or (first in "au" and "s" in rest) or (first == "s" and rest[-1] in "gs")


def _cued(text: str, start: int) -> bool:
    """Whether a word that takes a person, or a title, stands before `start`."""
    before = text[max(0, start - _REACH) : start].lower()
    bare, cues = before.rstrip(_BETWEEN), words("cues")
    if not 0 < len(before) - len(bare) <= _MAX_BETWEEN or not bare:
        return False
    last = bare.rsplit(None, 2)[-2:]
    word = last[-1].rpartition('"')[2].lstrip("'({[<>*-|")
    return word in cues or f"{last[0]} {word}" in cues


def _alone(text: str, start: int, end: int) -> bool:
    """Whether a single given name stands as a person does: it acts, is spoken to, or follows a small word."""
    return _ACTS.match(text, end) is not None or (start > 1 and text[start - 1] == " " and text[start - 2].islower())


def _kind(token: str, lists: _Lists) -> str:
    """One of `_Lists.kinds`, u: not known. Of a double name, the first kind of a, g, s that one of its parts has."""
    low = token.lower().replace("’", "'").removesuffix("'s")
    if "-" not in low:
        return lists.kinds.get(low, "u")
    known = [lists.kinds.get(name, "u") for name in (low, *low.split("-"))]
    return min(known, key="agsu".index)


def _small(text: str, start: int) -> Item | None:
    """The name in small letters that begins at `start`, behind words that announce one."""
    lists = _lists()
    start += text.startswith(" ", start)
    match = _SMALL.match(text, start)
    if match is None or not match[0][0].islower():
        return None
    end = start
    for token in _TOKEN.finditer(text, start, match.end()):
        if token[0].lower() in lists.refused:
            break
        end = token.end()
    return Item("PERSON", start, end, LIKELY) if end > start + 1 else None
