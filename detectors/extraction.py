"""Model extraction by template: many near-equal prompts that differ in one slot, sent by one account.

The account's state is a ring of recent prompt sketches (SimHash, Charikar 2002) and a score that leaks with time; all
integers, O(1) per request, under 1 KB. A person who asks many different things never raises the score.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec

from detectors.base import HIGH, MEDIUM, Finding, Transcript

RING = 16
NEAR_BITS = 12
"""Sketches that differ in at most this many of 64 bits are near; equal ones are repeats, not a sweep."""
HALF_LIFE_MS = 10 * 60_000
STEP = 1000
SUSPECT = 8 * STEP
CAMPAIGN = 48 * STEP
"""Where a sweep becomes HIGH and is refused by default: applications with a template reach 16, few this."""
MAX_WORDS = 128
"""Words of one text that count, half from each end."""
MAX_CACHED = 32_768
"""Words whose hashes are remembered."""
MAX_CHARS = 8_192
"""Characters of one text that are read, half from each end."""
_TOKEN = re.compile("[\u2e80-\ud7ff\uf900-\ufaff\uff66-\uff9f]|[^\\s\u2e80-\ud7ff\uf900-\ufaff\uff66-\uff9f]+")
_LANE = 12
"""Bits of one count: enough for MAX_WORDS and the carry that is asked for."""
_ONES = sum(1 << _LANE * bit for bit in range(64))
_SPREAD = {ord("0"): "000", ord("1"): "001"}


class AccountState(msgspec.Struct, frozen=True, array_like=True):
    """What one principal's past requests amount to. ``score`` in thousandths of a near prompt."""

    ring: tuple[int, ...] = ()
    score: int = 0
    time: int = 0


def features(transcript: Transcript) -> tuple[int, ...]:
    """The sketch of the last user turn as one unsigned 64-bit integer; empty where there is no text."""
    text = next((part.text for part in reversed(transcript) if part.role == "user"), "")
    words = _words(text)
    if not words:
        return ()
    return (_simhash(words),)


def update(state: AccountState, sketch: Sequence[int], time: int) -> tuple[AccountState, tuple[Finding, ...]]:
    """The state after one request at ``time`` (ms), and what it gives rise to. Pure."""
    if not sketch:
        return state, ()
    value = sketch[0]
    score = _leak(state.score, time - state.time)
    if value not in state.ring and min([(held ^ value).bit_count() for held in state.ring], default=64) <= NEAR_BITS:
        score += STEP
    ring = (value, *state.ring)[:RING]
    after = AccountState(ring, score, max(time, state.time))
    if score >= CAMPAIGN:
        return after, (_finding(HIGH, 90),)
    if score >= SUSPECT:
        return after, (_finding(MEDIUM, 70),)
    return after, ()


def _leak(score: int, elapsed_ms: int) -> int:
    halvings, rest = divmod(max(0, elapsed_ms), HALF_LIFE_MS)
    halved = score >> min(halvings, 62)
    return halved - halved * rest // (2 * HALF_LIFE_MS)


def _finding(severity: int, confidence: int) -> Finding:
    return Finding("extraction.template-sweep", severity, confidence, 0, 0, "account", 0)


def _words(text: str) -> list[str]:
    """The first and the last words; where a script writes none, characters do their work."""
    text = text if len(text) <= MAX_CHARS else f"{text[: MAX_CHARS // 2]} {text[-MAX_CHARS // 2 :]}"
    words = text.lower().split() if text.isascii() else _TOKEN.findall(text.casefold())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS // 2] + words[-MAX_WORDS // 2 :]


def _simhash(words: Sequence[str]) -> int:
    """Bit i is set where more than half of the words' hashes have it set (Charikar 2002).

    All 64 counts are kept in one integer, `_LANE` bits each, so a word costs one addition.
    """
    total = sum(map(_LANES.__getitem__, words)) + _ONES * ((1 << _LANE - 1) - len(words) // 2 - 1)
    over = (total >> _LANE - 1) & _ONES
    return int(f"{over:0{64 * _LANE // 4}x}"[_LANE // 4 - 1 :: _LANE // 4], 2)


class _Lanes(dict[str, int]):
    """Word -> its hash with each bit moved to its lane; words repeat, so most are looked up."""

    def __missing__(self, word: str) -> int:
        if len(self) >= MAX_CACHED:
            self.clear()
        hashed = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        lanes = self[word] = int(f"{int.from_bytes(hashed, 'big'):064b}".translate(_SPREAD), 16)
        return lanes


_LANES = _Lanes()
