"""Words of one text and what they hint at: cue bits, function words, and 128 bits of hash for a sketch.

A word is looked up once; what is known of it stays in a bounded cache, so a request costs one dictionary look-up per
word. The table of cues is `cues.toml`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from functools import reduce
from importlib.resources import files
from operator import itemgetter, or_
from typing import NamedTuple

import ahocorasick

from detectors.packed import BitField


class Cue(NamedTuple):
    """One kind of hint that a word gives; `name` is its table in `cues.toml`."""

    name: str
    meaning: str


_cues: list[Cue] = []


def _cue(name: str, meaning: str) -> int:
    """The next bit."""
    _cues.append(Cue(name, meaning))
    return 1 << len(_cues) - 1


# fmt: off
REASON   = _cue("reason",   "reasons, thoughts, explanations")
STEP     = _cue("step",     "one step after the other")
WHOLE    = _cue("whole",    "all of it, in detail")
ORDER    = _cue("order",    "before, first, finally")
ANSWER   = _cue("answer",   "the answer or the result itself")
LAYOUT   = _cue("layout",   "a format of the answer: JSON, tags, sections")
MAKE     = _cue("make",     "invent, generate, rewrite")
TASKS    = _cue("tasks",    "tasks, prompts, questions, training data")
REPEAT   = _cue("repeat",   "repeat, print, say")
ENDLESS  = _cue("endless",  "without end, never stopping")
VERBATIM = _cue("verbatim", "word for word, from memory, the next passage")
# fmt: on
CUES = tuple(_cues)
"""The cues in the order of their bits."""
FUNCTION = 1 << len(CUES)
"""The word is a function word (an article, a pronoun); a text with hardly any is in no language."""
MAX_WORDS = 64
"""Words of one text that count, half from each end."""
MAX_CHARS = 4_096
"""Characters of one text that are read, half from each end."""
MAX_CACHED = 65_536
"""Words that are remembered, about 400 bytes each. With fewer, the words of a few thousand accounts push one another
out."""
BITS = 128
"""Bits of a word's hash, and of a sketch."""

WORD_HASH = BitField(0, 8 * BITS, "bits of the word's hash, one in each byte, so that sums of words are counts per bit")
WORD_FUNCTION = BitField(8 * (BITS + 1), 8, "1 for a function word, so that a sum of words counts those as well")
"""One byte above the hash, so that a word whose hash is moved down by a byte has no such mark in its hash."""
WORD_CUES = BitField(8 * (BITS + 2), len(CUES), "the word's cues; no sum of MAX_WORDS words reaches up to them")

_UNSPACED = "\u2e80-\ud7ff\uf900-\ufaff\uff66-\uff9f"
_RUN = re.compile(f"([{_UNSPACED}]+)|([^\\s{_UNSPACED}]+)")
_EDGE = ".,;:!?\"'()[]{}。，；：！？、“”‘’（）《》…"
_OPENING = "\"'([{"
_bits_of_match = itemgetter(1)


def cut(text: str) -> str:
    """The text as far as it is read: lower case, head and tail."""
    text = text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]} {text[-MAX_CHARS // 2 :]}"
    return text.lower()


def words(text: str) -> list[str]:
    """Words of a text that `cut` gave; characters where a script puts no spaces between words."""
    if text.isascii():
        return text.split()
    found: list[str] = []
    for unspaced, word in _RUN.findall(text):
        if unspaced:
            found += unspaced
        else:
            found.append(word)
    return found


_BITS_OF_BYTE = tuple(bytes(byte >> 7 - bit & 1 for bit in range(8)) for byte in range(256))


class WordTable(dict[str, int]):
    """Word -> its bits, packed as WORD_HASH, WORD_FUNCTION and WORD_CUES say; looked up once and then remembered."""

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        self._lexicon = lexicon

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_CACHED:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=BITS // 8).digest()
        packed = int.from_bytes(b"".join([_BITS_OF_BYTE[byte] for byte in digest]), "big")
        cues = self._lexicon.cues(word)
        if cues & FUNCTION:
            packed |= WORD_FUNCTION.pack(1)
        packed |= (cues & ~FUNCTION) << WORD_CUES.offset
        self[word] = packed
        return packed


_Beginnings = tuple[tuple[str, ...], list[tuple[str, bool, int]]]
"""The beginnings of words that share a first letter; and each with whether it is the whole word, and its cue."""
_NONE: _Beginnings = ((), [])


class Lexicon:
    """The cues of words and phrases, by the table of `cues.toml`."""

    def __init__(self, table: dict[str, dict[str, list[str]]]) -> None:
        self._function = frozenset((*table["function"]["words"], *"".join(table["function"]["phrases"])))
        by_letter: dict[str, list[tuple[str, bool, int]]] = {}
        by_phrase: dict[str, int] = {}
        for index, cue in enumerate(CUES):
            for word in table[cue.name]["words"]:
                by_letter.setdefault(word[0], []).append((word.rstrip("$"), word.endswith("$"), 1 << index))
            for phrase in table[cue.name]["phrases"]:
                by_phrase[phrase] = by_phrase.get(phrase, 0) | 1 << index
        self._beginnings: dict[str, _Beginnings] = {
            letter: (tuple(beginning for beginning, _, _ in known), known) for letter, known in by_letter.items()
        }
        self._phrases = ahocorasick.Automaton()
        for phrase, bits in by_phrase.items():
            self._phrases.add_word(phrase, bits)
        self._phrases.make_automaton()

    def in_text(self, part: str) -> int:
        """Cues of the phrases in a text whose script puts no spaces between words."""
        return reduce(or_, map(_bits_of_match, self._phrases.iter(part)), 0)

    def cues(self, word: str) -> int:
        """Cues of one word, and FUNCTION for a function word."""
        if len(word) == 1 and word >= "\u2e80":
            return FUNCTION if word in self._function else 0
        bare = word.strip(_EDGE)
        bits = FUNCTION if bare in self._function else 0
        bits |= self._begun(bare)
        opened = word.lstrip(_OPENING)
        return bits if opened == bare else bits | self._begun(opened)

    def _begun(self, word: str) -> int:
        """Cues of the beginnings that the word has."""
        beginnings, known = self._beginnings.get(word[:1], _NONE)
        if not word.startswith(beginnings):
            return 0
        bits = 0
        for beginning, whole, cue in known:
            if word == beginning if whole else word.startswith(beginning):
                bits |= cue
        return bits


def hashed(text: str, size: int) -> int:
    """A number of `size` bytes out of the text's BLAKE2b hash, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=size).digest(), "big")


LEXICON = Lexicon(tomllib.loads(files("detectors.accounts").joinpath("cues.toml").read_text("utf-8")))
WORDS = WordTable(LEXICON)
