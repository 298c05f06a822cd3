"""The language by which a text's threshold is chosen: `en`, `zh` or `other`, by script and function words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.packed import BitField
from detectors.prompts.grams import Bytes, Codes, Joined
from detectors.text.plane import IDEOGRAPHS, SYLLABLES, VARIED

LANGUAGES = ("en", "zh", "other")
EN = 0
ZH = 1
OTHER = 2
_READ = 400
"""Characters whose words are looked at."""
_HAN = BitField(0, 21, "ideographs")
_FOREIGN = BitField(21, 21, "other letters beyond ASCII")
_LATIN = BitField(42, 21, "letters of ASCII")

_ENGLISH = (
    "the of and to in is you that it for on are with as this be or by not your what how do can i my me we if an "
    "from have will write please would should there which about when where who why tell give make "
)
_FOREIGN_WORDS = (
    "der die und das ist nicht ein eine ich sie mit den von zu wie für le les des et est une vous dans que pour "
    "je pas sur el los las una por para con como es del al qué il di che non sono per della um uma não os em da "
    "na het een van ik niet voor dat yang dan untuk ini dengan apa của và là có không bir ve için nie jest się "
)
_VOTES = dict.fromkeys(_FOREIGN_WORDS.split(), 1) | dict.fromkeys(_ENGLISH.split(), -1)
"""A word that both lists hold counts as English."""


def _count_table() -> npt.NDArray[np.int64]:
    """Per code point of the basic plane, 1 in the field that it counts in; a text is counted by one sum."""
    counts = np.zeros(0x10000, dtype=np.int64)
    for code in VARIED:
        if unicodedata.category(chr(code))[0] not in "LM":
            continue
        if code < 0x80:
            counts[code] = _LATIN.pack(1)
        elif 0xF900 <= code < 0xFB00:
            counts[code] = _HAN.pack(1)
        else:
            counts[code] = _FOREIGN.pack(1)
    for ideographs in IDEOGRAPHS:
        counts[ideographs.start : ideographs.stop] = _HAN.pack(1)
    counts[SYLLABLES.start : SYLLABLES.stop] = _FOREIGN.pack(1)
    return counts


_COUNTS = _count_table()


def languages(joined: Joined, codes: Codes | Bytes, rows: Sequence[int] | None = None) -> npt.NDArray[np.intp]:
    """EN, ZH or OTHER of each text, or of the texts `rows` alone."""
    chosen = range(len(joined.starts)) if rows is None else rows
    starts, ends = joined.starts.tolist(), joined.ends.tolist()
    found = [_language(joined.text, codes[starts[row] : ends[row]], starts[row]) for row in chosen]
    return np.array(found, dtype=np.intp)


def _language(text: str, codes: Codes | Bytes, start: int) -> int:
    """A Han character says about as much as three letters.

    Kana, Hangul, Cyrillic, accented letters and the like make a text foreign from one letter in fifty on; Latin text
    without them is judged by its function words.
    """
    sums = int(_COUNTS.take(np.minimum(codes, np.uint32(0xFFFF))).sum())
    han, latin = _HAN.unpack(sums), _LATIN.unpack(sums)
    foreign = _FOREIGN.unpack(sums)
    if 9 * han > latin and han > 8 * foreign:
        return ZH
    if 50 * foreign > 3 * han + latin:
        return OTHER
    words = text[start : start + min(len(codes), _READ)].split()
    return OTHER if sum([_VOTES.get(word, 0) for word in words]) > 0 else EN
