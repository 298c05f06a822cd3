"""Names of people in Latin script: runs of capitalised words, judged by lists of names and by the words before them.

A run is cut at words that no name holds. What is left is a name where a cue such as a title stands before it, or where
the lists know one of its parts and the others may belong to it. Small-letter names are found behind a cue only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from detectors.pii.item import GUESS, LIKELY, PiiItem
from detectors.pii.lexicon import words
from detectors.pii.places import Places

_CAPITAL = (
    "A-ZÀ-ÖØ-ÞĀĂĄĆĈĊČĎĐĒĖĘĚĜĞĠĢĤĦĨĪĬĮİĴĶĹĻĽŁŃŅŇŌŎŐŒŔŖŘŚŜŞŠŢŤŨŪŬŮŰŲŴŶŸŹŻŽƠƯẠẢẤẦẨẪẬẮẰẲẴẶẸẺẼẾỀỂỄỆỈỊỌỎỐỒỔỖỘỚỜỞỠỢỤỦỨỪỬỮỰỲỴỶỸ"
)
_LETTER = "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
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
    capital: dict[str, str]
    """The same for words with a capital: r for one that no name holds."""
    cue_ends: frozenset[str]
    """The last two letters of each cue."""


@cache
def _lists() -> _Lists:
    surnames, ambiguous = words("surnames"), words("word_names")
    kinds = dict.fromkeys(surnames, "s") | dict.fromkeys(words("given_names"), "g") | dict.fromkeys(ambiguous, "a")
    kinds |= dict.fromkeys(ambiguous & surnames, "s")
    refused = (words("words") - ambiguous) | words("not_people") | words("cues")
    return _Lists(kinds, kinds | dict.fromkeys(refused, "r"), frozenset(cue[-2:] for cue in words("cues")))


def persons(text: str, places: Places) -> Iterator[PiiItem]:
    """Names in `text`, in order of their start; score LIKELY, or GUESS for a given name alone."""
    capital = _lists().capital
    for run in _RUN.finditer(text):
        word = run[0]
        name = word.lower()
        kind = capital.get(name)
        # most capitalised words begin a sentence
        if kind == "r":
            continue
        if name.isalpha():
            if len(word) > 1 and (found := _single(text, run, kind)):
                yield found
        else:
            yield from _in_run(text, run)
    offset = 0
    for start, end in places.small_name:
        if start >= offset and (found := _small(text, end)):
            offset = found.end
            yield found


def _single(text: str, run: re.Match[str], kind: str | None) -> PiiItem | None:
    """The name that a run of one word, longer than a letter, makes."""
    start, end = run.span()
    if _cued(text, start):
        score = LIKELY
    elif kind == "g" and end - start > 2 and not run[0].isupper() and _alone(text, start, end):
        score = GUESS
    else:
        return None
    return None if _FIRM.match(text, end) else PiiItem("PERSON", start, end, score)


_Part = tuple[int, str, str]
"""A word of a run: its place, itself, its kind."""


def _in_run(text: str, run: re.Match[str]) -> Iterator[PiiItem]:
    """A run's names: what lies between the words in it that no name holds."""
    lists = _lists()
    capital = lists.capital
    parts: list[_Part] = []
    offset = run.start()
    for word in run[0].split(" "):
        token = word.rstrip(".")
        low = token.lower()
        kind = capital.get(low, "u") if token.isalpha() and token[0] != low[0] else _kind(token, lists)
        if kind != "r":
            parts.append((offset, token, kind))
        elif parts:
            if found := _judged(text, parts):
                yield found
            parts = []
        offset += len(word) + 1
    if parts and (found := _judged(text, parts)):
        yield found


def _kind(token: str, lists: _Lists) -> str:
    """Of a word in a run: r where no name holds it, as it is an ordinary one or ends such as `I'm` or `They've`."""
    low = token.lower()
    if token.isalpha():
        return (lists.kinds if token[0] == low[0] else lists.capital).get(low, "u")
    low = low.replace("’", "'")
    if token[0] != low[0]:
        ordinary = (token.lower(), low.partition("'")[0])
        if low[:2] == "i'" or any(lists.capital.get(word) == "r" for word in ordinary):
            return "r"
    low = low.removesuffix("'s")
    # of a double name, the first kind of a, g, s that one of its parts has
    known = [lists.kinds.get(name, "u") for name in ((low, *low.split("-")) if "-" in low else (low,))]
    return min(known, key="agsu".index)


def _judged(text: str, parts: list[_Part]) -> PiiItem | None:
    """The name that these words make, which follow one another in a run."""
    while parts and parts[-1][1][0].islower():
        parts.pop()
    while parts and parts[0][1][0].islower():
        parts.pop(0)
    kinds = [kind for _, word, kind in parts if len(word) > 1]
    if not kinds:
        return None
    start, end = parts[0][0], parts[-1][0] + len(parts[-1][1])
    if text[end - 2 : end] in ("'s", "’s"):
        end -= 2
    if len(kinds) > 2 and kinds[0] == "a" and kinds[1] == "g":
        # `Call Jane Smith`: a word that some bear as a name, before a name that is whole without it
        start, kinds = parts[1][0], kinds[1:]
    if (len(kinds) > 1 and _whole(kinds)) or _cued(text, start):
        score = LIKELY
    elif kinds == ["g"] and len(parts[0][1]) > 2 and not parts[0][1].isupper() and _alone(text, start, end):
        score = GUESS
    else:
        return None
    return None if _FIRM.match(text, end) else PiiItem("PERSON", start, end, score)


def _whole(kinds: list[str]) -> bool:
    """True where words of these kinds make a name of two parts and more without a cue."""
    first, rest = kinds[0], kinds[1:]
    return first == "g" or (first in "au" and "s" in rest) or (first == "s" and rest[-1] in "gs")


def _cued(text: str, start: int) -> bool:
    """True where a word that takes a person, or a title, stands before `start`."""
    if not start or text[start - 1] not in _BETWEEN:
        return False
    # nearly always it is one space, behind a word that no cue ends like
    if text[start - 2 : start - 1].isalpha() and text[start - 3 : start - 1].lower() not in _lists().cue_ends:
        return False
    before = text[max(0, start - _REACH) : start].lower()
    bare = before.rstrip(_BETWEEN)
    if bare[-2:] not in _lists().cue_ends or len(before) - len(bare) > _MAX_BETWEEN:
        return False
    last = bare.rsplit(None, 2)[-2:]
    word = last[-1].rpartition('"')[2].lstrip("'({[<>*-|")
    cues = words("cues")
    return word in cues or f"{last[0]} {word}" in cues


def _alone(text: str, start: int, end: int) -> bool:
    """True where a single given name stands as a person does: it acts, is spoken to, or follows a small word."""
    return _ACTS.match(text, end) is not None or (start > 1 and text[start - 1] == " " and text[start - 2].islower())


def _small(text: str, start: int) -> PiiItem | None:
    """The name in small letters that begins at `start`, behind words that announce one."""
    lists = _lists()
    start += text.startswith(" ", start)
    match = _SMALL.match(text, start)
    if match is None or not match[0][0].islower():
        return None
    end = start
    for token in _TOKEN.finditer(text, start, match.end()):
        if lists.capital.get(token[0].lower()) == "r":
            break
        end = token.end()
    return PiiItem("PERSON", start, end, LIKELY) if end > start + 1 else None
