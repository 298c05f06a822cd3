"""The catalogue: every detector, run over a batch of bounded transcripts, none able to stop the others.

A request that a detector fails on, or of which a part was left unread, bears a HIGH finding that says so: under the
default policy what was not screened is refused, and a tenant who prefers otherwise raises its block severity.
"""

from __future__ import annotations

from collections.abc import Sequence

from detectors.base import HIGH, Detector, Finding, Transcript
from detectors.pii import PiiDetector
from detectors.prompts.assess import PROMPTS
from detectors.text.window import MAX_CHARS, TRUNCATED, fit, placed

CATALOGUE: tuple[Detector, ...] = (PROMPTS, PiiDetector())
MAX_FINDINGS = 16
"""Findings of one request that are kept, the worst first, so that a record stays small for any text."""


def screen(
    transcripts: Sequence[Transcript], budget: int = MAX_CHARS, detectors: Sequence[Detector] = CATALOGUE
) -> list[tuple[Finding, ...]]:
    """At most MAX_FINDINGS findings per transcript, ordered by turn and start; pure and deterministic.

    `budget` is the number of code points read of one transcript.
    """
    fitted = [fit(transcript, budget) for transcript in transcripts]
    texts = [one.transcript for one in fitted]
    columns = [_contained(detector, texts) for detector in detectors]
    out: list[tuple[Finding, ...]] = []
    for one, *rows in zip(fitted, *columns, strict=True):
        if not one.gaps and not any(rows):
            out.append(())
            continue
        found = [placed(finding, one) for row in rows for finding in row] if one.gaps else [f for r in rows for f in r]
        found += [Finding(TRUNCATED, HIGH, 100, start, end, "raw", turn) for turn, start, end in one.gaps[:1]]
        out.append(_bounded(found))
    return out


def _contained(detector: Detector, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
    """The detector's findings; where it fails, each transcript alone, so only those it fails on bear the failure."""
    rows = _tried(detector, texts)
    if rows is not None:
        return rows
    failed = (Finding(f"detector.error.{detector.name}", HIGH, 100, 0, 0, "raw", 0),)
    return [row[0] if (row := _tried(detector, [text])) is not None else failed for text in texts]


def _tried(detector: Detector, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]] | None:
    """The detector's findings; None where it raises or does not answer once for each transcript."""
    try:
        rows = detector.screen(texts)
    except Exception:  # a fault of a detector is a finding of its own and no reason to lose the batch
        return None
    return rows if len(rows) == len(texts) else None


def _bounded(found: list[Finding]) -> tuple[Finding, ...]:
    if len(found) > MAX_FINDINGS:
        found = sorted(found, key=lambda f: (-f.severity, -f.confidence, f.turn, f.start, f.rule))[:MAX_FINDINGS]
    return tuple(sorted(found, key=lambda f: (f.turn, f.start, f.rule, f.end)))
