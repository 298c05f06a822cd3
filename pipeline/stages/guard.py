"""The output guard: personal data and secrets redacted while the answer streams."""

from __future__ import annotations

from detectors.base import LOW, Finding
from detectors.pii import StreamRedactor

_CONFIDENCE = 90


class Redaction:
    """A ``generate.Guard``; each type that was redacted is one finding."""

    def __init__(self) -> None:
        self._redactor = StreamRedactor()

    def push(self, text: str) -> str:
        return self._redactor.push(text)

    def flush(self) -> str:
        return self._redactor.flush()

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(f"pii.{kind}", LOW, _CONFIDENCE, 0, 0, "raw", 0) for kind in sorted(self._redactor.counts)
        )


class Unguarded:
    """A ``generate.Guard`` that lets everything through."""

    findings: tuple[Finding, ...] = ()

    def push(self, text: str) -> str:
        return text

    def flush(self) -> str:
        return ""
