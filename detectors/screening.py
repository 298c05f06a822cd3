"""All that is ever read out of a prompt's text, as integers: findings, and the features of the sender's account."""

from __future__ import annotations

from collections.abc import Sequence

from detectors.accounts.features import text_features
from detectors.base import Screened, Transcript
from detectors.catalogue import screen


def screen_batch(transcripts: Sequence[Transcript]) -> list[Screened]:
    """One answer per transcript, in order; pure and deterministic."""
    return [Screened(*found) for found in zip(screen(transcripts), map(text_features, transcripts), strict=True)]
