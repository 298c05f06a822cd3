"""Personal data and secrets: found in a text with exact offsets, and taken out of texts and of streams of text."""

from __future__ import annotations

from detectors.pii.actions import ACTIONS, REDACT, Action, Actions, redact, rewritten
from detectors.pii.contextual import find
from detectors.pii.detector import PiiDetector
from detectors.pii.item import PiiItem
from detectors.pii.sentences import HOLD_BACK_SENTENCES, SentenceRedactor
from detectors.pii.stream import HOLD_BACK, StreamRedactor

__all__ = [
    "ACTIONS",
    "HOLD_BACK",
    "HOLD_BACK_SENTENCES",
    "REDACT",
    "Action",
    "Actions",
    "PiiDetector",
    "PiiItem",
    "SentenceRedactor",
    "StreamRedactor",
    "find",
    "redact",
    "rewritten",
]
