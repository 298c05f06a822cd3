"""The basic plane of Unicode: texts as its 16-bit units, and which of its characters must be looked up one by one.

Tables over the plane are built when a process starts. Three quarters of it are ideographs, Hangul syllables, halves of
surrogate pairs and private use, each kind alike in all that is asked here; leaving those out of the loops makes the
tables in a third of the time.
"""

from __future__ import annotations

from itertools import chain

import numpy as np
import numpy.typing as npt

IDEOGRAPHS = (range(0x3400, 0x4DC0), range(0x4E00, 0xA000))
"""Letters; between the two stand the signs of the I Ching, which are none."""
SYLLABLES = range(0xAC00, 0xD7A4)
"""Letters too."""
VARIED = tuple(chain(range(0x3400), range(0xA000, 0xAC00), range(0xD7A4, 0xD800), range(0xF900, 0x10000)))
"""All others that are not of one kind. What is left out is no digit, no space and no mark, and folds to itself."""


def utf16(text: str) -> npt.NDArray[np.uint16]:
    """The text's UTF-16 units, so that a table can be applied to all of them at once."""
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), dtype="<u2")


def from_utf16(units: npt.NDArray[np.uint16]) -> str:
    return units.astype("<u2", copy=False).tobytes().decode("utf-16-le", "surrogatepass")
