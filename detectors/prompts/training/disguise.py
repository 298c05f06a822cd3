"""Disguises that training rows wear, so that a disguise alone never decides: shuffled letters and encoded wrappers."""

from __future__ import annotations

import base64
import re

import numpy as np

_WORD = re.compile(r"[a-z]{4,24}")
_AROUND = ("{}", "decode this: {}", "what does {} say?", "please translate {} to plain text", "base64 {}", "解码：{}")


def scrambled(text: str, draw: np.random.Generator) -> str:
    """Inner letters of every word in another order; first and last stay (typoglycemia)."""

    def shuffle(match: re.Match[str]) -> str:
        word = match[0]
        inner = draw.permutation(len(word) - 2)
        return word[0] + "".join([word[1 + place] for place in inner.tolist()]) + word[-1]

    return _WORD.sub(shuffle, text)


def wrapped(text: str, draw: np.random.Generator) -> str:
    """The text in base64 within an ordinary request, in lower case, as a reading without its decoding shows it."""
    code = base64.b64encode(text.encode("utf-8", "replace")).decode()
    return _AROUND[int(draw.integers(len(_AROUND)))].format(code).lower()
