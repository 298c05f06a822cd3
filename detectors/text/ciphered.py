"""Readings of whole texts that are written backwards, with letters moved by thirteen, in base64 or without blanks.

Each is looked for by words that only such a text holds, so that an ordinary one pays for a few searches."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from array import array
from collections.abc import Iterator, Sequence

from detectors.text.normalize import TextView
from detectors.text.readable import worded

SAID = (
    "instruction", "prompt", "system", "ignore", "previous", "disregard", "forget", "rules", "reveal", "password",
    "secret", "without", "answer", "explain", "how to", "make a",
)  # fmt: skip
"""English of orders and requests; what is looked for is how a cipher writes it."""
SAID_ZH = ("指令", "提示", "忽略", "无视", "规则", "系统", "如何", "告诉", "输出", "密码")
_ROTATED = tuple(codecs.encode(word, "rot13") for word in SAID)
_BACKWARDS = tuple(word[::-1] for word in (*SAID, *SAID_ZH))
_ENOUGH = 2
"""So many different ones must stand in the text."""
MAX_CHARS = 16_000
"""Characters of a text that are read otherwise."""
_WORDS_IN_64 = re.compile(r"(?:[A-Za-z0-9+/]{2,24}={0,2}[ ,.;\n]+){2,}[A-Za-z0-9+/]{2,24}={0,2}")
_PADDED = re.compile(r"[a-zA-Z0-9]={1,2}[ ,.;\n]")
_GLUED = re.compile(r"[a-z]{24,}")
_WORDS = (
    "instructions restrictions instruction everything guidelines assistant developer disregard following "
    "anything override password previous earlier granted initial instead message pretend without access "
    "answer before bypass filter forget hidden ignore limits output please policy prompt refuse repeat "
    "reveal safety secret system above build every never print prior rules where write bomb free from "
    "give just make mode must only role show stop tell text that this user what will with word your act "
    "all and any are can for how key not now say the you ai an as be do in is me my no of on or to a"
)
"""Words that glued ones are cut into, the longest first."""
_KNOWN = re.compile(_WORDS.replace(" ", "|"))
_SHARE, _LEAST = 0.7, 5
"""Letters of a run that known words cover, and how many words."""


def ciphered(joined: str) -> bool:
    """True where any of clean texts that are joined may be one of these but for glued words; cheap."""
    return _enough(_ROTATED, joined) or _enough(_BACKWARDS, joined) or "= " in joined


def _enough(words: Sequence[str], text: str) -> bool:
    return sum(word in text for word in words) >= _ENOUGH


def deciphered(raw: str, view: TextView) -> Iterator[TextView]:
    """The other readings of a text, `raw` as it came and `view` clean."""
    text = view.text[:MAX_CHARS]
    if _enough(_ROTATED, text):
        yield TextView("decoded", codecs.encode(text, "rot13"), view.starts, view.ends)
    if _enough(_BACKWARDS, text):
        yield _spanning(text[::-1], 0, len(raw))
    if _GLUED.search(text):
        cut = _GLUED.sub(lambda run: _cut(run[0]), text)
        if cut != text:
            yield _spanning(cut, 0, len(raw))
    for run in _WORDS_IN_64.finditer(raw[:MAX_CHARS]) if len(_PADDED.findall(text)) >= _ENOUGH else ():
        if len(_PADDED.findall(run[0])) >= _ENOUGH and (said := _words(re.split(r"[ ,.;\n]+", run[0]))):
            yield _spanning(said.lower(), *run.span())


def _spanning(text: str, start: int, end: int) -> TextView:
    """A reading of which every character stands for the whole range."""
    return TextView("decoded", text, array("I", [start]) * len(text), array("I", [end]) * len(text))


def _cut(run: str) -> str:
    """The run with blanks between its words, where it is made of such."""
    found = _KNOWN.findall(run)
    if len(found) < _LEAST or sum(map(len, found)) < _SHARE * len(run):
        return run
    return _KNOWN.sub(r" \g<0> ", run)


def _words(tokens: Sequence[str]) -> str:
    """The text of tokens that are each a word in base64; those that are none are left out."""
    said = []
    for token in tokens:
        try:
            said.append(base64.b64decode(token, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
    return worded(" ".join(said)) or ""
