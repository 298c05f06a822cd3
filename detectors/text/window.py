"""Cuts a transcript to what detectors read, and puts findings back at their true offsets."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from detectors.base import Finding, Part, Transcript

MAX_CHARS = 262_144
"""Code points of one request that are read. A longer part is read at its head and its tail."""


MAX_PARTS = 256
"""Parts of one request that are read, half from each end."""


TRUNCATED = "detector.truncated"


_SEAM = "\n\n"


class Fitted(NamedTuple):
    """A transcript within the bounds, and what it takes to give findings in it their true places."""

    transcript: Transcript
    turns: tuple[int, ...] = ()
    """True turn of each part; empty where nothing was left out and `gaps` is all that changed."""
    gaps: tuple[tuple[int, int, int], ...] = ()
    """(turn, start, end) of each range that is not read, in true offsets."""


def fit(transcript: Transcript, budget: int, unread: str = "system") -> Fitted:
    """Parts in the role `unread` are left whole: no detector reads them."""
    total = 0
    for part in transcript:
        total += len(part.text)
    if total <= budget and len(transcript) <= MAX_PARTS:
        return Fitted(transcript)
    half = MAX_PARTS // 2
    count = len(transcript)
    turns = range(count) if count <= MAX_PARTS else (*range(half), *range(count - half, count))
    parts: list[Part] = []
    gaps = [(turn, 0, len(transcript[turn].text)) for turn in range(half, count - half)] if count > MAX_PARTS else []
    share = _share([len(transcript[turn].text) for turn in turns if transcript[turn].role != unread], budget)
    for turn in turns:
        part = transcript[turn]
        if part.role == unread or len(part.text) <= share:
            parts.append(part)
            continue
        start, end = share // 2, len(part.text) - share // 2
        parts.append(Part(part.role, part.text[:start] + _SEAM + part.text[end:]))
        gaps.append((turn, start, end))
    return Fitted(tuple(parts), tuple(turns), tuple(gaps))


def _share(lengths: list[int], budget: int) -> int:
    """The most one part may have so that all fit: short parts leave what they do not need to the long ones."""
    left = len(lengths)
    for length in sorted(lengths):
        if length * left > budget:
            return budget // left
        budget -= length
        left -= 1
    return max(lengths, default=0)


def placed(finding: Finding, fit: Fitted) -> Finding:
    """The finding with its true turn and offsets."""
    turn = fit.turns[finding.turn] if finding.turn < len(fit.turns) else finding.turn
    start, end = finding.start, finding.end
    for gap, low, high in fit.gaps:
        if gap == turn:
            shift = high - low - len(_SEAM)
            start += shift if start >= low + len(_SEAM) else 0
            end += shift if end > low + len(_SEAM) else 0
    return replace(finding, turn=turn, start=start, end=end)
