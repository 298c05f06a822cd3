"""Word lists, read once each. Lines that begin with `#` say where a list comes from and
under which licence."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def words(name: str) -> frozenset[str]:
    """The lines of list `name`."""
    return frozenset(_lines(name))


@cache
def characters(name: str) -> str:
    """The characters of list `name`, in its order."""
    return "".join(_lines(name))


def _lines(name: str) -> list[str]:
    text = (resources.files("detectors.pii.lexicon") / f"{name}.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
