"""Model extraction by template: many near-equal prompts that differ in one slot, sent by one account.

The account's state is a ring of recent prompt sketches (SimHash, Charikar 2002) and a score that leaks with time; all
integers, O(1) per request, under 1 KB. A person who asks many different things never raises the score.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

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
_AT_ONCE = 128
"""Transcripts that are read together; all their words fit the cache."""


class AccountState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one principal's past requests amount to. ``score`` in thousandths of a near prompt."""

    ring: tuple[int, ...] = ()
    score: int = 0
    time: int = 0


def features(transcript: Transcript) -> tuple[int, ...]:
    """The sketch of the last user turn as one unsigned 64-bit integer; empty where there is no text."""
    return features_of_many((transcript,))[0]


def features_of_many(transcripts: Sequence[Transcript]) -> list[tuple[int, ...]]:
    """``features`` of each, in order."""
    found: list[tuple[int, ...]] = []
    for at in range(0, len(transcripts), _AT_ONCE):
        texts = [_words(_last_said(transcript)) for transcript in transcripts[at : at + _AT_ONCE]]
        sketches = iter(_sketches([words for words in texts if words]))
        found += [(next(sketches),) if words else () for words in texts]
    return found


def _last_said(transcript: Transcript) -> str:
    return next((part.text for part in reversed(transcript) if part.role == "user"), "")


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


def found_at(state: AccountState, sketch: Sequence[int], time: int) -> tuple[Finding, ...]:
    """What ``update`` would find; most accounts are so far from a finding that their score alone says there is none."""
    return () if state.score + STEP < SUSPECT else update(state, sketch, time)[1]


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


def _sketches(texts: Sequence[Sequence[str]]) -> list[int]:
    """Of each text (never without words): bit i is set where more than half of its words' hashes have it set
    (Charikar 2002)."""
    if not texts:
        return []
    counts = np.array([len(words) for words in texts])
    rows = _HASHES.rows([word for words in texts for word in words])
    sums = np.add.reduceat(rows, np.cumsum(counts) - counts, axis=0).view(np.uint8)
    packed = np.packbits(sums > (counts // 2)[:, np.newaxis], axis=1).tobytes()
    return [int.from_bytes(packed[at : at + 8], "big") for at in range(0, len(packed), 8)]


class _Hashes(dict[str, int]):
    """Word -> the row that holds the 64 bits of its hash; words repeat, so most are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self._bits = np.empty((MAX_CACHED, 64), dtype=np.uint8)
        # eight counts a machine word: MAX_WORDS of them do not reach the next one's byte
        self._rows = self._bits.view(np.uint64)

    def rows(self, words: Sequence[str]) -> npt.NDArray[np.uint64]:
        """The bits of each word, a byte each, most significant first; at most MAX_CACHED words."""
        if len(self) + len(words) > MAX_CACHED:
            self.clear()
        return self._rows.take(np.fromiter(map(self.__getitem__, words), dtype=np.intp, count=len(words)), axis=0)

    def __missing__(self, word: str) -> int:
        hashed = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
        at = self[word] = len(self)
        self._bits[at] = np.unpackbits(np.frombuffer(hashed, dtype=np.uint8))
        return at


_HASHES = _Hashes()
