"""The guards around the model: what it does not get to read, and personal data and secrets in what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from detectors.base import LOW, MEDIUM, Finding
from detectors.pii import StreamRedactor, redact
from pipeline.events.records import Work
from pipeline.events.wire import Message

MARKER = "[removed]"
"""Stands for what the policy took out of a prompt."""
_CONFIDENCE = 90
_SEVERITY = {"redact": LOW, "withhold": MEDIUM, "review": MEDIUM}


def cleaned(work: Work, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages as the model may read them. A marker is no longer than what it stands for, so the bound on the
    prompt's tokens holds."""
    if not work.blanks and not work.blank_personal:
        return tuple(messages)
    return tuple(Message(m.role, _cleaned(work, turn, m.content)) for turn, m in enumerate(messages))


def _cleaned(work: Work, turn: int, text: str) -> str:
    for at, start, end in reversed(work.blanks):
        if at == turn:
            text = text[:start] + _fitted(MARKER, text[start:end]) + text[end:]
    if work.blank_personal:
        for item in reversed(redact(text)[1]):
            text = text[: item.start] + _fitted(f"[{item.type}]", text[item.start : item.end]) + text[item.end :]
    return text


def _fitted(marker: str, removed: str) -> str:
    return marker[: len(removed.encode("utf-8", "surrogatepass"))]


class Redaction:
    """A ``generate.Guard``; each type that was found is one finding.

    ``redact`` takes items out, ``withhold`` ends the answer before the first one, ``review`` lets them pass and tells.
    """

    def __init__(self, act: Literal["redact", "withhold", "review"] = "redact") -> None:
        self._act = act
        self._redactor = StreamRedactor()

    @property
    def verdict(self) -> str:
        return self._act if self._redactor.counts else "release"

    def push(self, text: str) -> str:
        return self._passed(text, self._redactor.push(text))

    def flush(self) -> str:
        return self._passed("", self._redactor.flush())

    def _passed(self, text: str, redacted: str) -> str:
        if self._act == "review":
            return text
        return "" if self.verdict == "withhold" else redacted

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(f"pii.{kind}", _SEVERITY[self._act], _CONFIDENCE, 0, 0, "raw", 0)
            for kind in sorted(self._redactor.counts)
        )


class Unguarded:
    """A ``generate.Guard`` that lets everything through."""

    findings: tuple[Finding, ...] = ()
    verdict = "release"

    def push(self, text: str) -> str:
        return text

    def flush(self) -> str:
        return ""


def guard_of(work: Work) -> Redaction | Unguarded:
    """The guard that the tenant's policy asks for."""
    return Unguarded() if work.output == "release" else Redaction(work.output)
