"""The catalogue: every detector, run over a batch of bounded transcripts, none able to stop the others.

A request that a detector fails on, or of which a part was left unread, bears a HIGH finding that says so: under the
default policy what was not screened is refused, and a tenant who prefers otherwise raises its block severity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from detectors.base import HIGH, LOW, Detector, Finding, Part, Transcript
from detectors.pii import PiiDetector
from detectors.prompts import PromptDetector, Zone

PROMPTS = PromptDetector()
CATALOGUE: tuple[Detector, ...] = (PROMPTS, PiiDetector())
MAX_FINDINGS = 16
"""Findings of one request that are kept, the worst first; a record stays small whatever its text holds."""
MAX_CHARS = 262_144
"""Code points of one request that are read. A longer part is read at its head and its tail."""
MAX_PARTS = 256
"""Parts of one request that are read, half from each end."""
TRUNCATED = "detector.truncated"
_SEAM = "\n\n"


class Assessment(NamedTuple):
    """What the prompt detector makes of a transcript: its worst part's score (0 .. 1, one half flags) and reading."""

    score: float = 0.0
    zone: Zone = "pass"
    flagged: bool = False
    language: str = "other"
    view: str = "clean"
    rules: tuple[str, ...] = ()
    """Ids of the rules in use, not merely mentioned, in any part."""
    findings: tuple[Finding, ...] = ()


class _Fitted(NamedTuple):
    """A transcript within the bounds, and what it takes to give findings in it their true places."""

    transcript: Transcript
    turns: tuple[int, ...] = ()
    """True turn of each part; empty where nothing was left out and `gaps` is all that changed."""
    gaps: tuple[tuple[int, int, int], ...] = ()
    """(turn, start, end) of each range that is not read, in true offsets."""


def screen(
    transcripts: Sequence[Transcript], budget: int = MAX_CHARS, detectors: Sequence[Detector] = CATALOGUE
) -> list[tuple[Finding, ...]]:
    """At most MAX_FINDINGS findings per transcript, ordered by turn and start; pure and deterministic.

    `budget` is the number of code points read of one transcript.
    """
    fitted = [_fit(transcript, budget) for transcript in transcripts]
    texts = [fit.transcript for fit in fitted]
    columns = [_contained(detector, texts) for detector in detectors]
    out: list[tuple[Finding, ...]] = []
    for fit, *rows in zip(fitted, *columns, strict=True):
        if not fit.gaps and not any(rows):
            out.append(())
            continue
        found = [_placed(finding, fit) for row in rows for finding in row] if fit.gaps else [f for r in rows for f in r]
        found += [Finding(TRUNCATED, HIGH, 100, start, end, "raw", turn) for turn, start, end in fit.gaps[:1]]
        out.append(_bounded(found))
    return out


def assess(transcripts: Sequence[Transcript], budget: int = MAX_CHARS) -> list[Assessment]:
    """One assessment per transcript, system parts included; the default one where there is nothing to read."""
    fitted = [_fit(transcript, budget, unread="") for transcript in transcripts]
    out: list[Assessment] = []
    for fit, verdicts in zip(fitted, PROMPTS.assess([fit.transcript for fit in fitted]), strict=True):
        if not verdicts:
            out.append(Assessment())
            continue
        worst = max(verdicts, key=lambda verdict: verdict.odds)
        findings = tuple([_placed(f, fit) if fit.gaps else f for verdict in verdicts for f in verdict.findings])
        rules = sorted({f.rule for f in findings if f.severity > LOW}) + [TRUNCATED] * bool(fit.gaps)
        out.append(
            Assessment(worst.score, worst.zone, worst.flagged, worst.language, worst.view, tuple(rules), findings)
        )
    return out


def _contained(detector: Detector, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
    """The detector's findings; where it fails, each transcript alone, so only those it fails on bear the failure."""
    rows = _tried(detector, texts)
    if rows is not None:
        return rows
    failed = (Finding(f"detector.error.{detector.name}", HIGH, 100, 0, 0, "raw", 0),)
    return [row[0] if (row := _tried(detector, [text])) is not None else failed for text in texts]


def _tried(detector: Detector, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]] | None:
    """What the detector finds; None where it raises or does not answer once for each transcript."""
    try:
        rows = detector.screen(texts)
    except Exception:  # whatever a detector does wrong is its own finding and no reason to lose the batch
        return None
    return rows if len(rows) == len(texts) else None


def _bounded(found: list[Finding]) -> tuple[Finding, ...]:
    if len(found) > MAX_FINDINGS:
        found = sorted(found, key=lambda f: (-f.severity, -f.confidence, f.turn, f.start, f.rule))[:MAX_FINDINGS]
    return tuple(sorted(found, key=lambda f: (f.turn, f.start, f.rule, f.end)))


def _fit(transcript: Transcript, budget: int, unread: str = "system") -> _Fitted:
    """Parts in the role `unread` are left whole: no detector reads them."""
    total = 0
    for part in transcript:
        total += len(part.text)
    if total <= budget and len(transcript) <= MAX_PARTS:
        return _Fitted(transcript)
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
    return _Fitted(tuple(parts), tuple(turns), tuple(gaps))


def _share(lengths: list[int], budget: int) -> int:
    """The most one part may have so that all fit: short parts leave what they do not need to the long ones."""
    left = len(lengths)
    for length in sorted(lengths):
        if length * left > budget:
            return budget // left
        budget -= length
        left -= 1
    return max(lengths, default=0)


def _placed(finding: Finding, fit: _Fitted) -> Finding:
    """The finding with its true turn and offsets."""
    turn = fit.turns[finding.turn] if finding.turn < len(fit.turns) else finding.turn
    start, end = finding.start, finding.end
    for gap, low, high in fit.gaps:
        if gap == turn:
            shift = high - low - len(_SEAM)
            start += shift if start >= low + len(_SEAM) else 0
            end += shift if end > low + len(_SEAM) else 0
    return replace(finding, turn=turn, start=start, end=end)
