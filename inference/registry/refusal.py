"""Why the registry said no."""

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
    """Says what was expected, what came and what to do; never holds key material or weights."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code: Code = code
