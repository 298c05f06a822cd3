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
_SMALL_SIGNS = ("name is", "name was", "ame:", "ame=", " me ", "this is m", "this is d")
"""One of these is in every text that _SMALL_CUE finds something in."""
_SMALL_CUE = re.compile(
    r"(?:my|his|her|their|full|first|last|maiden|the) name (?:is|was) |call(?:ed)? me |name[:=] ?"
    r"|this is (?:mr|mrs|ms|dr)\.? ",
    re.IGNORECASE,
)
_SMALL = re.compile(rf"[{_LETTER}][{_LETTER}'’-]{{1,24}}(?: [{_LETTER}][{_LETTER}'’-]{{0,24}}\.?){{0,3}}")
_REACH = 28


class _Lists(NamedTuple):
    given: frozenset[str]
    surnames: frozenset[str]
    ambiguous: frozenset[str]
    refused: frozenset[str]


@cache
def _lists() -> _Lists:
    ambiguous = words("word_names")
    refused = (words("words") - ambiguous) | words("not_people") | words("cues")
    return _Lists(words("given_names"), words("surnames"), ambiguous, refused)


def persons(text: str) -> Iterator[Item]:
    """Names in `text`, in order of their start; score LIKELY, or GUESS for a given name alone."""
    refused = _lists().refused
    for run in _RUN.finditer(text):
        # most capitalised words begin a sentence
        if run[0].lower() in refused:
            continue
        yield from _in_run(text, run)
    if any(sign in text for sign in _SMALL_SIGNS):
        for cue in _SMALL_CUE.finditer(text):
            yield from _small(text, cue.end())


def _in_run(text: str, run: re.Match[str]) -> Iterator[Item]:
    """A run's names: what lies between the words in it that no name holds."""
    lists = _lists()
    parts: list[re.Match[str]] = []
    for token in [*_TOKEN.finditer(text, run.start(), run.end()), None]:
        if token is not None and not _refused(token[0], lists):
            parts.append(token)
            continue
        if parts and (found := _judged(text, parts, lists)):
            yield found
        parts = []


def _refused(token: str, lists: _Lists) -> bool:
    """Whether no name holds the word: it is an ordinary one, or one with an ending such as `I'm` or `They've`."""
    if token[0].islower():
        return False
    low = token.lower()
    return low in lists.refused or low.replace("’", "'").partition("'")[0] in lists.refused or low[:2] in ("i'", "i’")


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
    """g: a given name; s: a surname; a: a name that is a word too; u: not known."""
    low = token.lower().replace("’", "'").removesuffix("'s")
    names = [low, *low.split("-")] if "-" in low else [low]
    for kind, known in (("a", lists.ambiguous), ("g", lists.given), ("s", lists.surnames)):
        if any(name in known for name in names):
            return "s" if kind == "a" and names[0] in lists.surnames else kind
    return "u"


def _small(text: str, start: int) -> Iterator[Item]:
    lists = _lists()
    match = _SMALL.match(text, start)
    if match is None or not match[0][0].islower():
        return
    end = start
    for token in _TOKEN.finditer(text, start, match.end()):
        low = token[0].lower()
        if low in lists.refused:
            break
        end = token.end()
    if end > start + 1:
        yield Item("PERSON", start, end, LIKELY)
