"""The words every detector speaks: a transcript goes in, findings of integers come out.

A finding never carries text. Offsets count code points of the original part, so an analyst who may
read the text can point at the place, and an audit record without the text still replays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Protocol, runtime_checkable

import msgspec

Role = Literal["system", "user", "assistant", "document"]

LOW = 1
MEDIUM = 2
HIGH = 3
CRITICAL = 4


class Part(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One turn or one embedded document of a request; its index in the transcript is its turn."""

    role: Role
    text: str


Transcript = tuple[Part, ...]


class Span(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Half-open range `[start, end)` of code points in one part's original text."""

    start: int
    end: int


class Finding(msgspec.Struct, frozen=True, gc=False, array_like=True, order=True):
    """One rule that fired: where, how bad (1 low .. 4 critical), how sure (0 .. 100).

    `view` names the reading of the text that matched (`raw`, `clean`, `loose`, `decoded`, `fold`);
    `turn` is the index of the part. A detector that failed or ran out of time is reported by its
    caller as a finding too, with rule `detector.timeout.<name>` or `detector.error.<name>`.
    """

    rule: str
    severity: Annotated[int, msgspec.Meta(ge=1, le=4)]
    confidence: Annotated[int, msgspec.Meta(ge=0, le=100)]
    start: Annotated[int, msgspec.Meta(ge=0)]
    end: Annotated[int, msgspec.Meta(ge=0)]
    view: str
    turn: Annotated[int, msgspec.Meta(ge=0)]


class Screened(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The yield of one transcript; ``features`` are the text's part of a trace, empty where it was not read."""

    findings: tuple[Finding, ...] = ()
    features: tuple[int, ...] = ()


def risk(findings: Iterable[Finding]) -> int:
    """0 (nothing found) .. 100 (critical and certain): the worst finding, its confidence weighed by its severity."""
    return max((finding.confidence * finding.severity // CRITICAL for finding in findings), default=0)


@runtime_checkable
class Detector(Protocol):
    """Pure and deterministic: equal transcripts give equal findings, in order of turn and start."""

    name: str

    def screen(self, texts: Sequence[Transcript]) -> list[tuple[Finding, ...]]:
        """One tuple of findings per transcript, same length and order as `texts`."""
        ...
