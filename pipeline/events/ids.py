"""A request's id follows from its place; a run has some grace after its deadline."""

from __future__ import annotations

import re

GRACE_MS = 5_000
"""After its deadline a run has this long to be reported before it counts as expired."""


def request_id(generation: str, partition: int, offset: int) -> str:
    """Derive the id from the request's place, so every replay gives the same one."""
    return f"{generation}-{partition}-{offset}"


def place_of(request: str) -> tuple[int, int] | None:
    """Give partition and offset in ``requests`` that an id names; None where it is none."""
    parts = re.fullmatch(r".+-([0-9]{1,10})-([0-9]{1,20})", request, re.ASCII)
    return (int(parts[1]), int(parts[2])) if parts else None


def is_request_id(generation: str, text: str) -> bool:
    """Tell whether ``text`` could be one that ``request_id`` made under ``generation``."""
    return re.fullmatch(rf"{re.escape(generation)}-[0-9]{{1,10}}-[0-9]{{1,20}}", text, re.ASCII) is not None
