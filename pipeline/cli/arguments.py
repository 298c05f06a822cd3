"""Kinds of arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds. ``choices=range(...)`` would list every one of them in its error."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = low - 1
        if not low <= found <= high:
            raise argparse.ArgumentTypeError(f"expected {low:,} to {high:,}, got {text[:40]!r}")
        return found

    return read


PORT = whole(1, 65_535)
