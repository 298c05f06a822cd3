"""The prompt detector's reading of a whole transcript: one assessment each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from detectors.base import LOW, Finding, Transcript
from detectors.prompts.detector import PromptDetector, Zone
from detectors.text.window import MAX_CHARS, TRUNCATED, fit, placed

PROMPTS = PromptDetector()


class Assessment(NamedTuple):
    """The prompt detector's view of a transcript: its worst part's score (0 .. 1, one half flags) and reading."""

    score: float = 0.0
    zone: Zone = "pass"
    flagged: bool = False
    language: str = "other"
    view: str = "clean"
    rules: tuple[str, ...] = ()
    """Ids of the rules in use, not merely mentioned, in any part."""
    findings: tuple[Finding, ...] = ()


def assess(transcripts: Sequence[Transcript], budget: int = MAX_CHARS) -> list[Assessment]:
    """One assessment per transcript, system parts included; the default one where there is nothing to read."""
    fitted = [fit(transcript, budget, unread="") for transcript in transcripts]
    out: list[Assessment] = []
    for one, verdicts in zip(fitted, PROMPTS.assess([each.transcript for each in fitted]), strict=True):
        if not verdicts:
            out.append(Assessment())
            continue
        worst = max(verdicts, key=lambda verdict: verdict.odds)
        findings = tuple([placed(f, one) if one.gaps else f for verdict in verdicts for f in verdict.findings])
        rules = sorted({f.rule for f in findings if f.severity > LOW}) + [TRUNCATED] * bool(one.gaps)
        out.append(
            Assessment(worst.score, worst.zone, worst.flagged, worst.language, worst.view, tuple(rules), findings)
        )
    return out
