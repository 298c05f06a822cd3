"""The trace of one request: a dozen integers that hold no text and travel in the decision record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import reduce
from operator import or_, xor
from typing import NamedTuple
from zlib import crc32

import msgspec

from detectors.accounts.cues import LEXICON, MAX_WORDS, WORD_CUES, WORD_FUNCTION, WORDS, cut, words
from detectors.accounts.sketch import majority, sketch
from detectors.base import Transcript
from detectors.packed import BitField

EDGE_WORDS = 4
"""Words at each end that are hashed as the opening and the closing of a text; twice as many characters."""
HEAD_WORDS, TAIL_WORDS = 16, 24
HEAD_CHARS, TAIL_CHARS = 40, 56
"""Words at each end in which cues count; characters in a script without spaces."""
SHORT_WORDS = 4
REPEATED_WORDS, REPEATED_SHARE = 10, 3
"""A text of that many words of which at most one in REPEATED_SHARE is another word repeats itself."""
MAX_BIASES = 1_024

HEAD_CUES = BitField(0, 11, "cues among the first words")
TAIL_CUES = BitField(11, 11, "cues among the last words")
FUNCTION_WORDS = BitField(22, 4, "function words among the words, in thirtieths, 15 at most")
UNFINISHED = BitField(26, 1, "ends with a letter or a digit, without a stop")
QUESTION = BitField(27, 1, "ends with a question mark")
REPETITIVE = BitField(28, 1, "repeats few words")
UNSPACED = BitField(29, 1, "is in a script without spaces between words")
SHORT = BitField(30, 1, "has few words")
WORDING = (HEAD_CUES, TAIL_CUES, FUNCTION_WORDS, UNFINISHED, QUESTION, REPETITIVE, UNSPACED, SHORT)
"""The fields of `Trace.wording`."""

TEMPERATURE = BitField(0, 8, "temperature in hundredths; 255 above 2.55, below 0 and where it is no number")
MAX_TOKENS = BitField(8, 20, "most tokens of the answer; 0 where the client set none")
LOGPROBS = BitField(28, 1, "log-probabilities are asked for")
TOP_LOGPROBS = BitField(29, 5, "alternatives asked for at each position")
CHOICES = BitField(34, 7, "answers asked for, 1 at least")
SAMPLING = (TEMPERATURE, MAX_TOKENS, LOGPROBS, TOP_LOGPROBS, CHOICES)
"""The fields of `Trace.sampling`."""

_DIGITS = re.compile(r"\d+")
_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else byte for byte in range(256))
_bits_of = WORDS.__getitem__


class RequestParameters(msgspec.Struct, frozen=True, gc=False):
    """The parameters of one request that extraction plays with, as the client sent them."""

    temperature: float = 1.0
    max_tokens: int = 0
    logprobs: bool | int = False
    top_logprobs: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    n: int = 1


class TextFeatures(NamedTuple):
    """The first part of a trace: the last user turn. All fields are 0 where it has no word."""

    sketch_high: int = 0
    sketch_low: int = 0
    text_hash: int = 0
    form_hash: int = 0
    head_hash: int = 0
    tail_hash: int = 0
    wording: int = 0
    length: int = 0


class SamplingFeatures(NamedTuple):
    """The second part of a trace: the parameters."""

    bias_tokens: int = 0
    biases: int = 0
    sampling: int = 0


class Trace(NamedTuple):
    """One request as integers; `tuple(trace)` is what the record holds. Hashes have 32 bits and are 0 for nothing."""

    sketch_high: int = 0
    """Upper 64 bits of the text's sketch."""
    sketch_low: int = 0
    """Lower 64 bits."""
    text_hash: int = 0
    """Of the whole text."""
    form_hash: int = 0
    """Of the text with 0 for each of its numbers; equal to `text_hash` where it has none."""
    head_hash: int = 0
    """Of the opening words."""
    tail_hash: int = 0
    """Of the closing words."""
    wording: int = 0
    """Cues and shape of the text, packed as WORDING says."""
    length: int = 0
    """Words of the text, or characters in a script without spaces."""
    bias_tokens: int = 0
    """Hash of the tokens that a logit bias names."""
    biases: int = 0
    """Hash of those tokens with their biases."""
    sampling: int = 0
    """Sampling parameters, packed as SAMPLING says."""


def trace(transcript: Transcript, parameters: RequestParameters) -> Trace:
    """The trace of the last user turn under these parameters. Pure, never raises on any text or number."""
    return Trace(*text_features(transcript), *sampling_features(parameters))


def traced(features: Sequence[int]) -> Trace | None:
    """The trace that a record holds; None where it holds none, because the text could not be read."""
    return Trace(*features) if len(features) == len(Trace._fields) else None


def text_features(transcript: Transcript) -> TextFeatures:
    """The text's part of a trace."""
    text = _last_user_turn(transcript)
    found = words(text)
    if not found:
        return _WORDLESS
    length = len(found)
    unspaced = not text.isascii() and length > 2 * text.count(" ") + 4
    if length > MAX_WORDS:
        found = found[: MAX_WORDS // 2] + found[-MAX_WORDS // 2 :]
    packed = list(map(_bits_of, found))
    summed = sum(packed)
    if unspaced and len(packed) > 1:  # pairs of characters stand for words
        moved = [bits >> 8 for bits in packed]
        full = sketch(map(xor, packed, moved[1:]), len(packed) - 1)
    else:
        full = majority(summed, len(packed))
    wording = _wording(text, found, packed, unspaced, length)
    wording |= FUNCTION_WORDS.pack(30 * WORD_FUNCTION.unpack(summed) // len(packed))
    raw = text.encode("utf-8", "replace")
    whole = crc32(raw)
    numbered = _has_digits(text, raw)
    form = _hash(text, numbered) if numbered else whole
    edge = min(2 * EDGE_WORDS if unspaced else EDGE_WORDS, len(found) // 2)
    head = _hash(" ".join(found[:edge]), numbered) if edge else 0
    tail = _hash(" ".join(found[-edge:]), numbered) if edge else 0
    return TextFeatures(full >> 64, full & _LOW, whole, form, head, tail, wording, length)


def sampling_features(parameters: RequestParameters) -> SamplingFeatures:
    """The parameters' part of a trace."""
    warmth = parameters.temperature
    hundredths = round(100 * warmth) if 0 <= warmth <= 2.55 else TEMPERATURE.maximum
    sampling = (
        TEMPERATURE.pack(hundredths)
        | MAX_TOKENS.pack(parameters.max_tokens)
        | LOGPROBS.pack(bool(parameters.logprobs))
        | TOP_LOGPROBS.pack(parameters.top_logprobs)
        | CHOICES.pack(max(1, parameters.n))
    )
    if not parameters.logit_bias:
        return SamplingFeatures(0, 0, sampling)
    biases = sorted(parameters.logit_bias[:MAX_BIASES])
    tokens = [token for token, _ in biases]
    return SamplingFeatures(crc32(repr(tokens).encode()), crc32(repr(biases).encode()), sampling)


_WORDLESS = TextFeatures()
_LOW = (1 << 64) - 1


def _last_user_turn(transcript: Transcript) -> str:
    for part in reversed(transcript):
        if part.role == "user":
            return cut(part.text)
    return ""


def _wording(text: str, found: list[str], packed: list[int], unspaced: bool, length: int) -> int:
    """The fields of WORDING but for the function words. `found` and `packed` are words and their bits."""
    head = reduce(or_, packed[:HEAD_WORDS])
    # nearly all texts are short, and then the words of the head are of the tail as well
    tail = reduce(or_, packed[HEAD_WORDS:], head) if len(packed) <= TAIL_WORDS else reduce(or_, packed[-TAIL_WORDS:])
    head >>= WORD_CUES.offset
    tail >>= WORD_CUES.offset
    if unspaced:
        begun = LEXICON.in_text(text[:HEAD_CHARS])
        head |= begun
        tail |= begun if len(text) <= HEAD_CHARS else LEXICON.in_text(text[-TAIL_CHARS:])
    wording = head << HEAD_CUES.offset | tail << TAIL_CUES.offset
    last = found[-1][-1]
    if last.isalnum():
        wording |= UNFINISHED.mask
    if last in "?？":
        wording |= QUESTION.mask
    if len(found) >= REPEATED_WORDS and _repeats(found):
        wording |= REPETITIVE.mask
    if unspaced:
        wording |= UNSPACED.mask
    if length <= (2 * SHORT_WORDS if unspaced else SHORT_WORDS):
        wording |= SHORT.mask
    return wording


def _repeats(found: list[str]) -> bool:
    """True where at most one word in REPEATED_SHARE is another one, and three of them are half of the text."""
    most = len(found) // REPEATED_SHARE
    # half of an ordinary text has more already
    if len(set(found[: len(found) // 2])) > most or len(set(found)) > most:
        return False
    # the log of an agent repeats whole lines, a stuck record a word or two
    return 2 * sum(sorted(Counter(found).values())[-3:]) >= len(found)


def _has_digits(text: str, raw: bytes) -> bool:
    """True where the text, which is `raw` in UTF-8, holds a digit of any script."""
    # searching bytes is ten times as fast, but knows the digits of ASCII alone
    return b"0" in raw.translate(_DIGITS_TO_ZERO) if text.isascii() else _DIGITS.search(text) is not None


def _hash(text: str, numbered: bool) -> int:
    """The text's hash; of a `numbered` text with 0 for each of its numbers."""
    if not numbered:
        return crc32(text.encode("utf-8", "replace"))
    if not text.isascii():
        return crc32(_DIGITS.sub("0", text).encode("utf-8", "replace"))
    raw = text.encode().translate(_DIGITS_TO_ZERO)
    while b"00" in raw:
        raw = raw.replace(b"00", b"0")
    return crc32(raw)
