"""Readings of whole texts that are written backwards, with letters moved by thirteen, in base64 or without blanks.

Each is looked for by words that only such a text holds, so that an ordinary one pays for a few searches."""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import NamedTuple

from detectors.text.normalize import TextView
from detectors.text.readable import worded

SAID = (
    "instruction", "prompt", "system", "ignore", "previous", "disregard", "forget", "rules", "reveal", "password",
    "secret", "without", "answer", "explain", "how to", "make a",
)  # fmt: skip
"""English of orders and requests; what is looked for is how a cipher writes it."""
SAID_ZH = ("指令", "提示", "忽略", "无视", "规则", "系统", "如何", "告诉", "输出", "密码")
_ENOUGH = 2
"""So many different ones must stand in the text."""
MAX_CHARS = 16_000
"""Characters of a text that are read otherwise."""
_WORDS_IN_64 = re.compile(r"(?:[A-Za-z0-9+/]{2,24}={0,2}[ ,.;\n]+){2,}[A-Za-z0-9+/]{2,24}={0,2}")
_PADDED = re.compile(r"[a-zA-Z0-9]={1,2}[ ,.;\n]")
_GLUED = re.compile(r"[a-z]{24,}")
_KNOWN = frozenset(resources.files("detectors.text").joinpath("words.txt").read_text("ascii").split())
"""Common words of English requests, read now: the process that reads texts can open no file later."""
_SHARE, _LEAST = 0.75, 5
"""Letters of a run that known words cover, and how many words."""
_RUN = 600
"""Letters of a run that are cut."""
_LONGEST = 14
_COMMON = (
    "the", "you", "your", "this", "that", "what", "with", "how", "write", "please", "for", "have", "from", "can",
    "will", "all", "give", "tell", "make", "should", "would", "could", "like", "about", "which", "when", "need", "must",
    "any", "only", "just", "into", "their", "there", "then", "following",
)  # fmt: skip
"""Words that most texts hold some of, and that are none when written backwards or moved by thirteen."""
_FIRST = ("the ", "you", "this", "instruction", "prompt", "system")
"""What is looked for in every text."""
_COMMON_ZH = (
    "什么", "怎么", "我们", "如果", "因为", "可以", "没有", "需要", "这个", "请你", "之前", "内容",
    "回答", "直接", "角色", "扮演", "限制", "任何", "必须", "现在", "作为", "开始", "按照", "设定",
)  # fmt: skip
_TOKEN = re.compile(r"[a-z]+")
_ENDS = ".。?!"
_JOINED = (*(f"\0\n{sign}" for sign in _ENDS), "= ")
"""Beginnings of texts, as a batch is joined, with the end of a sentence, and padding of base64 between words."""


class Cipher(NamedTuple):
    """Words as a cipher writes them: those that stand by themselves, those that are looked for anywhere, and a few of
    both that one search each is spent on in every text."""

    common: frozenset[str]
    said: tuple[str, ...]
    first: tuple[str, ...]

    @staticmethod
    def of(write: Callable[[str], str], more: Sequence[str] = ()) -> Cipher:
        words = (*SAID, *more)
        return Cipher(frozenset(map(write, _COMMON)), tuple(map(write, words)), tuple(map(write, _FIRST)))

    def wrote(self, text: str) -> bool:
        """True where the text holds enough of these words."""
        return len(self.common.intersection(_TOKEN.findall(text))) >= _ENOUGH or _enough(self.said, text)


_ROTATED = Cipher.of(lambda word: codecs.encode(word, "rot13"))
_BACKWARDS = Cipher.of(lambda word: word[::-1], (*SAID_ZH, *_COMMON_ZH))
_ANYWHERE = (*_ROTATED.first, *_BACKWARDS.first, *_JOINED)
_BACKWARDS_ZH = tuple(word[::-1] for word in SAID_ZH)


def ciphered(joined: str) -> bool:
    """True where any of clean texts that are joined may be one of these but for glued words; cheap."""
    if any(map(joined.__contains__, _ANYWHERE)):
        return True
    return not joined.isascii() and _enough(_BACKWARDS_ZH, joined)


def _enough(words: Sequence[str], text: str) -> bool:
    found = 0
    for word in words:
        found += word in text
        if found == _ENOUGH:
            return True
    return False


def deciphered(raw: str, view: TextView) -> Iterator[TextView]:
    """The other readings of a text, `raw` as it came and `view` clean."""
    text = view.text[:MAX_CHARS]
    if _ROTATED.wrote(text):
        yield TextView("decoded", codecs.encode(text, "rot13"), view.starts, view.ends)
    if _BACKWARDS.wrote(text) or (text[:1] in _ENDS and text[1:2].isalpha() and text[-1:] not in _ENDS):
        yield _spanning(text[::-1], 0, len(raw))
    yield from unglued(raw, view)
    for run in _WORDS_IN_64.finditer(raw[:MAX_CHARS]) if len(_PADDED.findall(text)) >= _ENOUGH else ():
        if len(_PADDED.findall(run[0])) >= _ENOUGH and (said := _words(re.split(r"[ ,.;\n]+", run[0]))):
            yield _spanning(said.lower(), *run.span())


def unglued(raw: str, view: TextView) -> Iterator[TextView]:
    """The text with blanks between words that stand together without."""
    text = view.text[:MAX_CHARS]
    if _GLUED.search(text) and (cut := _GLUED.sub(lambda run: _cut(run[0]), text)) != text:
        yield _spanning(cut, 0, len(raw))


def _spanning(text: str, start: int, end: int) -> TextView:
    """A reading of which every character stands for the whole range."""
    return TextView("decoded", text, array("I", [start]) * len(text), array("I", [end]) * len(text))


def _cut(run: str) -> str:
    """The run with blanks between its words, where it is made of such: of all ways the one that leaves fewest letters
    outside of words and needs fewest words."""
    letters = run[:_RUN]
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(letters) + 1):
        cost, size = best[end - 1][0] + 10, 0
        for length in range(2 if end > 1 else 1, min(end, _LONGEST) + 1):
            if letters[end - length : end] in _KNOWN and best[end - length][0] + 1 < cost:
                cost, size = best[end - length][0] + 1, length
        best.append((cost, size))
    words: list[str] = []
    end, covered = len(letters), 0
    while end:
        size = best[end][1]
        covered += size
        words.append(letters[end - max(size, 1) : end] if size else f"\0{letters[end - 1]}")
        end -= max(size, 1)
    if covered < _SHARE * len(letters) or sum(not word.startswith("\0") for word in words) < _LEAST:
        return run
    return " ".join(reversed(words)).replace(" \0", "").replace("\0", "") + run[_RUN:]


def _words(tokens: Sequence[str]) -> str:
    """The text of tokens that are each a word in base64; those that are none are left out."""
    said = []
    for token in tokens:
        try:
            said.append(base64.b64decode(token, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
    return worded(" ".join(said)) or ""
