"""Structured personal data in prompts, as findings of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from detectors.base import LOW, MEDIUM, Finding, Transcript
from detectors.pii.item import SECRET, shown
from detectors.pii.scan import hinted, items

MAX_ITEMS = 16
"""Items reported per part."""
MAX_TRIES = 2_048
"""Places per part at which an item could begin that are looked at for findings; some 20 ms where all are digits."""
GRAVE = frozenset({SECRET, "CN_ID", "CN_BANK_CARD", "CREDIT_CARD", "IBAN", "US_SSN"})
"""Types whose loss does lasting harm: MEDIUM findings, the others LOW."""


class PiiDetector:
    """Findings `pii.<type>` below the default block severity: prompts with personal data are recorded, not refused."""

    name = "pii"

    def screen(self, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
        """Findings per transcript, at most MAX_ITEMS of a part; the operator's own words are not screened."""
        places = [
            (row, turn, part.text)
            for row, transcript in enumerate(texts)
            for turn, part in enumerate(transcript)
            if part.role != "system"
        ]
        found: list[list[Finding]] = [[] for _ in texts]
        for index in hinted([text for _, _, text in places]):
            row, turn, text = places[index]
            found[row] += _findings(text, turn)
        return [tuple(row) for row in found]


def _findings(text: str, turn: int) -> list[Finding]:
    found = []
    view = shown(text)
    for item in map(view.item, islice(items(view.text, tries=MAX_TRIES), MAX_ITEMS)):
        severity = MEDIUM if item.type in GRAVE else LOW
        found.append(Finding(f"pii.{item.type.lower()}", severity, item.score, item.start, item.end, "raw", turn))
    return found
