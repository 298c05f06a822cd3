"""Places of the words that tell personal data from other text: one scan for all of them.

Recognisers look where such a word stands instead of searching the text for their own. The scan is pyahocorasick's
(Aho and Corasick 1975): one pass for any number of words, some 25 ns a character.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import ahocorasick

_SAID = ("name is ", "name was ")
_SMALL_NAME = (
    *(f"{whose} {said}" for whose in ("my", "his", "her", "their", "full", "first", "last", "maiden", "the")
      for said in _SAID),
    "call me ", "called me ", "name:", "name=", "name: ", "name= ",
    *(f"this is {title} " for title in ("mr", "mrs", "ms", "dr", "mr.", "mrs.", "ms.", "dr.")),
)  # fmt: skip
_ADDRESS = (
    "address is", "address:", "address to", "live at", "live on", "live in", "lives at", "lives on", "lives in",
    "lived at", "lived on", "lived in", "located at", "send to", "send it to", "sent to", "sent it to", "ship to",
    "ship it to", "shipped to", "shipped it to", "deliver to", "delivered to", "return to", "moved to",
    "drop you off at", "drops you off at", "meet me at", "meet us at", "arrived at", "taxi to", "reside at",
    "resides at", "residing at", "stop at",
)  # fmt: skip
_WAY = (
    "box", "psc", "cmr", "unit", "apo", "fpo", "dpo", "ul.", "rue", "rua", "via", "calle", "av", "boulevard", "piazza",
    "corso", "strada", "camino", "carrera", "chemin", "jalan", "plaza", "place", "paseo", "travessa", "straße",
    "strasse", "str.", "gasse", "weg", "platz", "allee", "gata", "vägen", "vej", "gade", "veien", "straat", "laan",
    "gracht", "kade", "plein", "katu", "tie", "braut", "gt.", "utca", "u.", "út", "tér",
)  # fmt: skip
_BIRTH = ("born", "birth", "dob", "d.o.b", "出生", "诞辰", "生日", "生于", "生人", "生的", "生,", "生。")
_WECHAT = (
    "微信", "薇信", "威信", "徽信", "围信", "v信", "vx", "wx", "wechat", "we chat", "weixin", "绿泡泡", "卫星", "薇",
    "加v", "我v", "+v", "个v", "v我", "加微", "我微", "微:", "v:",
)  # fmt: skip
_QQ = (
    "qq",
    "扣扣",
    "抠抠",
    "企鹅",
    "球球号",
    "q号",
    "q群",
    "加q",
    "我q",
    "私q",
    "戳q",
    "扣我",
    "q我",
    "q number",
    "q:",
)
_PASSPORT = (
    "passport", "passeport", "pasaporte", "passaport", "reisepass", "passnummer", "paspoort", "护照", "護照",
    "パスポート", "旅券", "여권", "паспорт", "جواز",
)  # fmt: skip
_PASSWORD = ("password", "passwd", "passphrase", "pwd", "密码", "口令")


class Places(NamedTuple):
    """Half-open ranges of the words of each kind, in order of their ends; words may lie inside one another."""

    small_name: list[tuple[int, int]]
    """Words that a name follows, be it in small letters."""
    address: list[tuple[int, int]]
    way: list[tuple[int, int]]
    """Words for streets and boxes that stand before the number, or are written together with the name."""
    birth: list[tuple[int, int]]
    wechat: list[tuple[int, int]]
    password: list[tuple[int, int]]
    qq: list[tuple[int, int]]
    passport: list[tuple[int, int]]


_KINDS = (_SMALL_NAME, _ADDRESS, _WAY, _BIRTH, _WECHAT, _PASSWORD, _QQ, _PASSPORT)


def small_letters(text: str) -> str:
    """The text in small letters, character for character: of all code points U+0130 alone becomes two."""
    low = text.lower()
    return low if len(low) == len(text) else text.replace("\u0130", "i").lower()


def places(low: str) -> Places:
    """Places of all words in a text in `small_letters`."""
    found = Places(*([] for _ in _KINDS))
    for last, (kinds, length) in _automaton().iter(low):
        for kind in kinds:
            found[kind].append((last + 1 - length, last + 1))
    return found


@cache
def _automaton() -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for word in {word for words in _KINDS for word in words}:
        kinds = tuple(kind for kind, words in enumerate(_KINDS) if word in words)
        automaton.add_word(word, (kinds, len(word)))
    automaton.make_automaton()
    return automaton
