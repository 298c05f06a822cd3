"""What the record of an answer says of its watermark."""

from __future__ import annotations

from dataclasses import dataclass

SCHEME = "tournament-30/2"


@dataclass(slots=True)
class MarkAccount:
    """What the record of an answer says of its mark. Counts are output tokens."""

    scheme: str = SCHEME
    epoch: int = 0
    skipped: str = ""
    """Why nothing was marked; empty where something was, or could have been."""
    marked: int = 0
    no_context: int = 0
    repeated: int = 0
    code: int = 0
