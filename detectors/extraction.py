"""Model extraction by template: many near-equal prompts that differ in one slot, sent by one account.

The account's state is a ring of recent prompt sketches (SimHash, Charikar 2002) and a score that leaks with time; all
integers, O(1) per request, under 1 KB. A person who asks many different things never raises the score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from detectors.base import HIGH, MEDIUM, Finding, Transcript

RING = 16
NEAR_BITS = 12
"""Sketches that differ in at most this many of 64 bits are near; equal ones are repeats, not a sweep."""
HALF_LIFE_MS = 10 * 60_000
STEP = 1000
SUSPECT = 8 * STEP
CAMPAIGN = 16 * STEP
MAX_WORDS = 512


class AccountState(msgspec.Struct, frozen=True, array_like=True):
    """What one principal's past requests amount to. ``score`` in thousandths of a near prompt."""

    ring: tuple[int, ...] = ()
    score: int = 0
    time: int = 0


def features(transcript: Transcript) -> tuple[int, ...]:
    """The sketch of the last user turn as one unsigned 64-bit integer; empty where there is no text."""
    text = next((part.text for part in reversed(transcript) if part.role == "user"), "")
    words = text.casefold().split()[:MAX_WORDS]
    if not words:
        return ()
    return (_simhash(words),)


def update(state: AccountState, sketch: Sequence[int], time: int) -> tuple[AccountState, tuple[Finding, ...]]:
    """The state after one request at ``time`` (ms), and what it gives rise to. Pure."""
    if not sketch:
        return state, ()
    value = sketch[0]
    score = _leak(state.score, time - state.time)
    near = sum(1 for held in state.ring if 0 < (held ^ value).bit_count() <= NEAR_BITS)
    if near and value not in state.ring:
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


def _simhash(words: Sequence[str]) -> int:
    counts = [0] * 64
    for word in words:
        hashed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        for bit in range(64):
            counts[bit] += 1 if hashed >> bit & 1 else -1
    return sum(1 << bit for bit in range(64) if counts[bit] > 0)
