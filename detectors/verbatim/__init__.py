"""Runs of protected texts in what a model says: an index of hashed n-grams, and the redactor that asks it."""

from detectors.verbatim.index import ProtectedIndex
from detectors.verbatim.stream import MARKER, VerbatimRedactor

__all__ = ["MARKER", "ProtectedIndex", "VerbatimRedactor"]
