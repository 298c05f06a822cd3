"""Word lists, read once each. Lines that begin with `#` say where a list comes from and
under which licence."""

from __future__ import annotations

import re
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


def simplified(text: str) -> str:
    """The text with traditional characters of names and addresses as simplified ones, character for character."""
    return text.translate(_traditional()) if _any_traditional().search(text) else text


@cache
def _any_traditional() -> re.Pattern[str]:
    return re.compile(f"[{''.join(pair[0] for pair in _lines('zh_traditional'))}]")


@cache
def _traditional() -> dict[int, str]:
    return {ord(pair[0]): pair[1] for pair in _lines("zh_traditional")}


def _lines(name: str) -> list[str]:
    text = (resources.files("detectors.pii.lexicon") / f"{name}.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
