"""Labelled rows in JSON lines, for training and evaluation alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

Row = TypeVar("Row")


def read_rows(file: Path, kind: type[Row], expected: str) -> Iterator[Row]:
    """The rows of a file, each of type `kind`. Exits with file, line and what was `expected`, never with a text."""
    decoder = msgspec.json.Decoder(kind)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError as error:
                raise SystemExit(f"{file}:{number}: expected {expected}: {error}") from error
