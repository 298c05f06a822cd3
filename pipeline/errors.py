"""Errors by fault: who has to act on them."""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all errors that this package raises on purpose."""


class Malformed(PipelineError):
    """The sender's fault: the input is answered, recorded, and never retried."""


class Retryable(PipelineError):
    """A dependency's fault: pause, then do the same batch again."""


class Fatal(PipelineError):
    """An invariant broke: stop without committing, a person must look."""


class Unrecoverable(Fatal):
    """Fatal, and beginning anew could do harm: nothing goes on here before a person has acted."""


class ConfigError(PipelineError):
    """The operator's fault: exit code 2, with the file, the key and the fix."""


class Stopped(PipelineError):
    """The process was asked to end while it waited for a dependency; exit code 0."""
