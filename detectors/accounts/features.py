"""What one request tells of its account: a dozen integers that hold no text and travel in the decision record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from operator import or_, xor
from typing import NamedTuple
from zlib import crc32

import msgspec

from detectors.accounts.cues import CUES_BIT, FUNCTION, GRAMMAR_BIT, LEXICON, MAX_WORDS, WORDS, cut, words
from detectors.accounts.sketch import majority, sketch
from detectors.base import Transcript

EDGE_WORDS = 4
"""Words at each end that are hashed as the opening and the closing of a text; twice as many characters."""
HEAD_WORDS, TAIL_WORDS = 16, 24
HEAD_CHARS, TAIL_CHARS = 40, 56
"""Words at each end in which cues count; characters in a script without spaces."""
SHORT_WORDS = 4
RUN_WORDS, RUN_SHARE = 10, 3
"""A text of that many words of which only one in RUN_SHARE is new repeats itself."""
MAX_BIASES = 1_024
TextFeatures = tuple[int, int, int, int, int, int, int, int]
_SILENT: TextFeatures = (0, 0, 0, 0, 0, 0, 0, 0)
_LOW = (1 << 64) - 1
_DIGITS = re.compile(r"\d+")
_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
_lanes_of = WORDS.__getitem__
_COUNT = (1 << CUES_BIT - GRAMMAR_BIT) - 1
_CUE_BITS = FUNCTION.bit_length() - 1


class RequestParameters(msgspec.Struct, frozen=True, gc=False):
    """The parameters of one request that extraction plays with, as the client sent them."""

    temperature: float = 1.0
    max_tokens: int = 0
    logprobs: bool | int = False
    top_logprobs: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    n: int = 1


class Trace(NamedTuple):
    """One request as integers; `tuple(trace)` is what the record holds. Hashes are 32 bits, 0 where there is nothing;
    `form` is that of the text without its numbers.

    `marks` packs cues of the head and of the tail, the share of function words (0 .. 15) and facts about the shape;
    `dials` packs temperature (hundredths), max_tokens, log-probs, top_logprobs and n.
    """

    high: int = 0
    low: int = 0
    text: int = 0
    form: int = 0
    head: int = 0
    tail: int = 0
    marks: int = 0
    length: int = 0
    biased: int = 0
    biases: int = 0
    dials: int = 0


HEAD_CUES, TAIL_CUES, GRAMMAR = 0, _CUE_BITS, 2 * _CUE_BITS
OPEN, ASKS, RUNS, WIDE, SHORT = (1 << 2 * _CUE_BITS + 4 + at for at in range(5))
"""Marks: ends without a stop; ends with a question; repeats itself; a script without spaces; few words."""


def trace(transcript: Transcript, sampling: RequestParameters) -> Trace:
    """The trace of the last user turn under `sampling`. Pure, never raises on any text or number."""
    return Trace(*text_features(transcript), *sampling_features(sampling))


def traced(features: Sequence[int]) -> Trace | None:
    """The trace that a record holds; None where it holds none, as of a text that nobody could read."""
    return Trace(*features) if len(features) == len(Trace._fields) else None


def text_features(transcript: Transcript) -> TextFeatures:
    """What the last user turn says: `high` to `length` of its trace, all 0 where it has no word."""
    said = ""
    for part in reversed(transcript):
        if part.role == "user":
            said = cut(part.text)
            break
    found = words(said)
    if not found:
        return _SILENT
    plain = said.isascii()
    wide = not plain and len(found) > 2 * said.count(" ") + 4
    count = len(found)
    if count > MAX_WORDS:
        found = found[: MAX_WORDS // 2] + found[-MAX_WORDS // 2 :]
    lanes = list(map(_lanes_of, found))
    summed, size = sum(lanes), len(lanes)
    grammar = summed >> GRAMMAR_BIT & _COUNT
    if wide and size > 1:  # pairs of characters, which stand for words
        moved = [each >> 8 for each in lanes]
        full = sketch(map(xor, lanes, moved[1:]), size - 1)
    else:
        full = majority(summed, size)
    raw = said.encode("utf-8", "replace")
    text_hash = form = crc32(raw)
    # searching bytes is ten times as fast, but knows the digits of ASCII alone
    numbered = b"0" in raw.translate(_TO_ZERO) if plain else _DIGITS.search(said) is not None
    if numbered:
        form = _hash(said, numbered)
    head, tail = _edges(found, wide, numbered)
    marks = _marks(said, found, lanes, wide, count) | min(15, 30 * grammar // size) << GRAMMAR
    return full >> 64, full & _LOW, text_hash, form, head, tail, marks, count


def sampling_features(sampling: RequestParameters) -> tuple[int, int, int]:
    """What the parameters say: `biased`, `biases` and `dials` of a trace."""
    return *_bias(sampling.logit_bias), _dials(sampling)


def _marks(said: str, found: list[str], lanes: list[int], wide: bool, count: int) -> int:
    head = reduce(or_, lanes[:HEAD_WORDS]) >> CUES_BIT
    tail = reduce(or_, lanes[-TAIL_WORDS:]) >> CUES_BIT
    if wide:
        begun = LEXICON.in_text(said[:HEAD_CHARS])
        head |= begun
        tail |= begun if len(said) <= HEAD_CHARS else LEXICON.in_text(said[-TAIL_CHARS:])
    end = found[-1][-1]
    marks = head | tail << TAIL_CUES
    marks |= (end.isalnum() * OPEN) | ((end in "?？") * ASKS) | wide * WIDE
    if len(found) >= RUN_WORDS and len(set(found)) * RUN_SHARE <= len(found):
        marks |= RUNS
    return marks | (count <= (2 * SHORT_WORDS if wide else SHORT_WORDS)) * SHORT


def _edges(found: list[str], wide: bool, numbered: bool) -> tuple[int, int]:
    size = min(2 * EDGE_WORDS if wide else EDGE_WORDS, len(found) // 2)
    if not size:
        return 0, 0
    return _hash(" ".join(found[:size]), numbered), _hash(" ".join(found[-size:]), numbered)


def _hash(text: str, numbered: bool) -> int:
    """Of the text; where it is `numbered`, each of its numbers counts as 0."""
    if not numbered:
        return crc32(text.encode("utf-8", "replace"))
    if not text.isascii():
        return crc32(_DIGITS.sub("0", text).encode("utf-8", "replace"))
    raw = text.encode().translate(_TO_ZERO)
    while b"00" in raw:
        raw = raw.replace(b"00", b"0")
    return crc32(raw)


def _bias(biases: Sequence[tuple[int, float]]) -> tuple[int, int]:
    if not biases:
        return 0, 0
    kept = sorted(biases[:MAX_BIASES])
    return crc32(repr([token for token, _ in kept]).encode()), crc32(repr(kept).encode())


def _dials(sampling: RequestParameters) -> int:
    warmth, limit, top, choices = sampling.temperature, sampling.max_tokens, sampling.top_logprobs, sampling.n
    return (
        (round(100 * warmth) if 0 <= warmth <= 2.55 else 255)
        | _within(limit, 0, (1 << 20) - 1) << 8
        | bool(sampling.logprobs) << 28
        | _within(top, 0, 31) << 29
        | _within(choices, 1, 127) << 34
    )


def _within(value: int, least: int, most: int) -> int:
    return value if least <= value <= most else least if value < least else most


def temperature(dials: int) -> int:
    return dials & 255


def max_tokens(dials: int) -> int:
    return dials >> 8 & (1 << 20) - 1


def logprobs(dials: int) -> int:
    return dials >> 28 & 1


def top_logprobs(dials: int) -> int:
    return dials >> 29 & 31


def choices(dials: int) -> int:
    return dials >> 34 & 127
