"""All that is ever read out of a prompt's text, as integers: findings, and the features of the sender's account."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from detectors.accounts.features import spoken
from detectors.base import Finding, Transcript
from detectors.catalogue import screen


class Screened(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one transcript gave; ``features`` are the text's part of a trace, empty where nobody read it."""

    findings: tuple[Finding, ...] = ()
    features: tuple[int, ...] = ()


def screen_batch(transcripts: Sequence[Transcript]) -> list[Screened]:
    """One answer per transcript, in order; pure and deterministic."""
    return [Screened(*found) for found in zip(screen(transcripts), map(spoken, transcripts), strict=True)]
