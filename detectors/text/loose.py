"""The loose reading of a clean one: leetspeak as letters, spelled-out letters as words, words without emphasis."""

from __future__ import annotations

import itertools
import re
from array import array
from functools import partial

import numpy as np
import numpy.typing as npt

from detectors.text.normalize import TextView, replaced

_LEET = str.maketrans("013457@$!|", "oieastasil")
_LEET_WORD = re.compile(r"(?=[0-9@$!|]{0,63}[a-z])[a-z0-9@$!|]{4,64}")
_LEET_SHORT = re.compile(r"(?=[0-9@$!|]{0,2}[a-z])[a-z0-9@$!|]{2,3}")
_COMPANY = 3
_MOST = 0.4
"""Share of words in leetspeak from which a text is nothing else."""
_LEET_RUN = re.compile(r"[a-z0-9@$!|]+")
_LEET_SIGN = re.compile(r"[013457@$!|]")
_BETWEEN = r"[\s.\-_*|~/,+;:^&]"
_SPACED = re.compile(
    rf"(?<![a-z0-9])(?:[a-z0-9](?:{_BETWEEN}[a-z0-9]){{1,2}}\s{{2,3}}){{0,12}}"
    rf"(?:[a-z0-9]{_BETWEEN}){{3,}}[a-z0-9](?![a-z0-9])"
    rf"(?:(?:\s?[.!?,;:]{{1,2}})?\s{{2,3}}[a-z0-9](?:{_BETWEEN}[a-z0-9])*(?![a-z0-9]))*"
)
"""Letters one by one, four at least, and around them shorter words of the same kind."""
_WIDE_SPACE = re.compile(r"\s(?=[\s.,!?;:')\]])|(?<=['(\[])\s")
"""White space that is there only because letters stand one by one."""
_EMPTY = re.compile(r"<([a-z]{1,10})(?: [^<>]{0,80})?></\1>")
"""Markup around nothing, which shows nothing."""
_MARKS_OF_WORDS = re.compile(r"[*_~`]{1,3}(?=\w)|(?<=[\w.,!?])[*_~`]{1,3}")
_EMPHASISED = "* *"
"""What stands between words that each bear marks of emphasis."""
_SPACED_CJK = re.compile(r"(?:[\u4e00-\u9fff][\s.\-_*|~·/,+;:^&]{1,2}){3,}[\u4e00-\u9fff]")
_STRUNG = re.compile(r"(?:[^\n][.\-_*|~/,+;:^&]){8,}[\w ]?")
"""Every second character is a separator, between words too."""
_WORDY, _MOSTLY = 24, 0.6
"""Letters that no single word has, and the share of them in what is strung."""
_SHAPE = bytes(
    97 if chr(byte).isalnum() else 32 if chr(byte).isspace() or byte in b".-_*|~/,+;:^&" else byte
    for byte in range(0x80)
) + bytes(0x80)
"""ASCII classes of `_SPACED` and `_SPACED_CJK`: a cheap look whether either could match at all."""


def loose(view: TextView) -> TextView | None:
    """The clean view with leetspeak read as letters and spaced-out letters joined, if it differs.

    A single separator joins; two spaces, or a space where others join, stay a word break.
    """
    text = view.text
    keep = bytearray(b"\x01") * len(text)
    _drop_separators(text, keep)
    _drop_markup(text, keep)
    if 0 not in keep:
        read = _unleeted(text)
        return None if text == read else TextView("loose", read, view.starts, view.ends)
    places = np.frombuffer(keep, dtype=np.bool_).nonzero()[0].astype(np.uint32)
    read = _unleeted("".join(itertools.compress(text, keep)))
    return TextView("loose", read, _taken(view.starts, places), _taken(view.ends, places, 1))


def _drop_separators(text: str, keep: bytearray) -> None:
    """Clears ``keep`` at what stands between letters that are written one by one."""
    shape = text.encode("ascii", "replace").translate(_SHAPE)
    if b"a a a a" in shape:
        found = False
        for match in _STRUNG.finditer(text):
            letters = match[0][::2]
            if (" " not in letters and len(letters) < _WORDY) or sum(map(str.isalpha, letters)) < _MOSTLY * len(
                letters
            ):
                continue
            found = True
            keep[match.start() + 1 : match.end() : 2] = bytes((match.end() - match.start()) // 2)
        for match in _SPACED.finditer(text):
            if 0 in keep[match.start() : match.end()]:
                continue
            _join(match, keep)
            found = True
        for match in _WIDE_SPACE.finditer(text) if found else ():
            keep[match.start()] = 0
    if b"? ?" in shape or b"?  ?" in shape or "·" in text:
        for match in _SPACED_CJK.finditer(text):
            for index in range(match.start(), match.end()):
                keep[index] = text[index] >= "\u4e00"


def _drop_markup(text: str, keep: bytearray) -> None:
    """Clears ``keep`` at empty elements and at marks of emphasis around words."""
    if "></" in text:
        for match in _EMPTY.finditer(text):
            keep[match.start() : match.end()] = bytes(match.end() - match.start())
    if _EMPHASISED in text:
        for match in _MARKS_OF_WORDS.finditer(text):
            keep[match.start() : match.end()] = bytes(match.end() - match.start())


def unleeted(text: str, read: str) -> bool:
    """True where most words of a text are leetspeak: `read` is the same letters with their signs as letters."""
    if len(text) != len(read):
        return False
    words, others = text.split(), read.split()
    changed = sum(word != other for word, other in zip(words, others, strict=False))
    return changed >= _COMPANY and changed >= _MOST * len(words)


def unspelled(text: str) -> str:
    """The text with blanks in the place of letters that stand one by one, character for character."""
    return _SPACED_CJK.sub(_blank, _SPACED.sub(_blank, text))


def _blank(match: re.Match[str]) -> str:
    return " " * (match.end() - match.start())


def _taken(bounds: array[int] | None, places: npt.NDArray[np.uint32], shift: int = 0) -> array[int]:
    """The bounds at these places; where the view has none, its characters are their own places."""
    taken = places + np.uint32(shift) if bounds is None else np.frombuffer(bounds, dtype=np.uint32)[places]
    return array("I", taken.tobytes())


def _unleeted(text: str) -> str:
    """The text with signs that stand for letters read as those, character for character.

    Short words are read so in the company of longer ones only: alone, `b2b` and `3d` are words.
    """
    read = replaced(text, _LEET_SIGN, _LEET_RUN, partial(_LEET_WORD.sub, _unleet))
    if len(_LEET_WORD.findall(text)) < _COMPANY or read == text:
        return read
    return replaced(read, _LEET_SIGN, _LEET_RUN, partial(_LEET_SHORT.sub, _unleet))


def _join(match: re.Match[str], keep: bytearray) -> None:
    """Marks what separates the letters of this match. Beside dots or the like, white space separates words."""
    run, start = match[0], match.start()
    dotted = not run[1].isspace()
    for index in range(1, len(run) - 1):
        if run[index - 1].isalnum() and run[index + 1].isalnum() and not run[index].isalnum():
            keep[start + index] = dotted and run[index].isspace()


def _unleet(match: re.Match[str]) -> str:
    word = match[0].rstrip("!|")
    if _LEET_SIGN.search(word) is None:
        return match[0]
    return word.translate(_LEET) + match[0][len(word) :]
