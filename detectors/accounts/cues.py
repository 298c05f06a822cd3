"""Words of one text and what they hint at: cue bits, function words, and 128 lanes of hash for a sketch.

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

import ahocorasick

CUES = ("reason", "step", "whole", "order", "answer", "layout", "make", "tasks", "repeat", "endless", "verbatim")
REASON, STEP, WHOLE, ORDER, ANSWER, LAYOUT, MAKE, TASKS, REPEAT, ENDLESS, VERBATIM = (
    1 << at for at in range(len(CUES))
)
FUNCTION = 1 << len(CUES)
"""The word does grammar's work; a text with hardly any is no language."""
MAX_WORDS = 64
"""Words of one text that count, half from each end."""
MAX_CHARS = 4_096
"""Characters of one text that are read, half from each end."""
MAX_CACHED = 65_536
"""Words that are remembered, about 400 bytes each; fewer than a pack of a few thousand accounts has are looked up again
and again."""
BITS = 128
_WIDE = "\u2e80-\ud7ff\uf900-\ufaff\uff66-\uff9f"
_RUN = re.compile(f"([{_WIDE}]+)|([^\\s{_WIDE}]+)")
_CUE = itemgetter(1)
_EDGE = ".,;:!?\"'()[]{}。，；：！？、“”‘’（）《》…"


def cut(text: str) -> str:
    """The text as far as it is read: lower case, head and tail."""
    text = text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]} {text[-MAX_CHARS // 2 :]}"
    return text.lower()


def words(text: str) -> list[str]:
    """Words of a text that `cut` gave; where a script writes none, characters."""
    if text.isascii():
        return text.split()
    found: list[str] = []
    for wide, word in _RUN.findall(text):
        if wide:
            found += wide
        else:
            found.append(word)
    return found


_SPREAD = tuple(bytes(byte >> 7 - at & 1 for at in range(8)) for byte in range(256))
GRAMMAR_BIT = 8 * (BITS + 1)
GRAMMAR = 1 << GRAMMAR_BIT
"""Set above the lanes of a word that does grammar's work, so that a sum of words counts those too; one lane above, so
that a word moved down by a lane has no such mark among its lanes."""
CUES_BIT = GRAMMAR_BIT + 8
"""From here on a word bears its cues, so that one look tells all of it; no sum of words reaches up to them."""


class Lanes(dict[str, int]):
    """Word -> LANES bits of its hash, one in each byte of one integer, so that sums of words are counts per lane; above
    them whether it is grammar's, and its cues."""

    def __init__(self, lexicon: Lexicon) -> None:
        super().__init__()
        self._lexicon = lexicon

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_CACHED:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=BITS // 8).digest()
        lanes = int.from_bytes(b"".join([_SPREAD[byte] for byte in digest]), "big")
        cues = self._lexicon.cues(word)
        lanes = self[word] = lanes | GRAMMAR * (cues >= FUNCTION) | (cues & FUNCTION - 1) << CUES_BIT
        return lanes


_Starts = tuple[tuple[str, ...], list[tuple[str, bool, int]]]
_NONE: _Starts = ((), [])


class Lexicon:
    """What words and phrases hint at, by the table of `cues.toml`."""

    def __init__(self, table: dict[str, dict[str, list[str]]]) -> None:
        self._function = frozenset((*table["function"]["words"], *"".join(table["function"]["phrases"])))
        starts: dict[str, list[tuple[str, bool, int]]] = {}
        self._phrases = ahocorasick.Automaton()
        found: dict[str, int] = {}
        for at, cue in enumerate(CUES):
            for word in table[cue]["words"]:
                starts.setdefault(word[0], []).append((word.rstrip("$"), word.endswith("$"), 1 << at))
            for phrase in table[cue]["phrases"]:
                found[phrase] = found.get(phrase, 0) | 1 << at
        self._starts = {first: (tuple(start for start, _, _ in held), held) for first, held in starts.items()}
        for phrase, bits in found.items():
            self._phrases.add_word(phrase, bits)
        self._phrases.make_automaton()

    def in_text(self, part: str) -> int:
        """Cues of phrases in a script without spaces."""
        return reduce(or_, map(_CUE, self._phrases.iter(part)), 0)

    def cues(self, word: str) -> int:
        """Cues of one word, and FUNCTION where it is grammar's."""
        if len(word) == 1 and word >= "\u2e80":
            return FUNCTION if word in self._function else 0
        bare = word.strip(_EDGE)
        bits = FUNCTION if bare in self._function else 0
        bits |= self._begins(bare)
        opened = word.lstrip("\"'([{")
        return bits if opened == bare else bits | self._begins(opened)

    def _begins(self, part: str) -> int:
        starts, held = self._starts.get(part[:1], _NONE)
        if not part.startswith(starts):
            return 0
        bits = 0
        for start, whole, cue in held:
            if part == start if whole else part.startswith(start):
                bits |= cue
        return bits


def hashed(text: str, size: int) -> int:
    """The first `size` bytes of a hash that every machine gives."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=size).digest(), "big")


LEXICON = Lexicon(tomllib.loads(files("detectors.accounts").joinpath("cues.toml").read_text("utf-8")))
WORDS = Lanes(LEXICON)
