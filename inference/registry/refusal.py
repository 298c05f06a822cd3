"""Refusals of the registry."""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "unsigned",
    "signature",
    "manifest",
    "expired",
    "rolled_back",
    "revoked",
    "extra_file",
    "missing_file",
    "altered",
    "forbidden_file",
    "remote_code",
    "content",
    "key",
    "sealed",
    "role",
    "budget",
    "state",
    "unknown",
    "rollout",
]


class ModelRefused(ValueError):
    """A model, or an act on it, that is refused.

    The text says what was expected, what it got and what to do; it never holds key material or weights.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code: Code = code
