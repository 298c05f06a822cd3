"""Request ids, and the grace that a run has after its deadline."""

from __future__ import annotations

import re

GRACE_MS = 5_000
"""After its deadline a run has this long to be reported before it counts as expired."""


def request_id(generation: str, partition: int, offset: int) -> str:
    """Derived from where the request lies, so every replay gives the same id."""
    return f"{generation}-{partition}-{offset}"


def is_request_id(generation: str, text: str) -> bool:
    """Whether ``text`` could be one that ``request_id`` made under ``generation``."""
    return re.fullmatch(rf"{re.escape(generation)}-[0-9]{{1,10}}-[0-9]{{1,20}}", text, re.ASCII) is not None
