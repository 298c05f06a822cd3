"""Detectors: pure functions from transcripts to findings. The catalogue lives here."""

from __future__ import annotations

from detectors.base import Detector, Finding, Part, Role, Span, Transcript

__all__ = ["Detector", "Finding", "Part", "Role", "Span", "Transcript"]
