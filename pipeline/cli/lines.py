"""JSON lines in, JSON lines out: an answer per line, in order, at once when lines come singly, else in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

MAX_LINE = 64 << 20
"""Bytes of one line; the rest of a longer one is read over and it counts as `None`."""
_CHUNK = 1 << 20
Line = bytes | None


def answer(source: int, out: BinaryIO, reply: Callable[[Sequence[Line]], Sequence[bytes]], batch: int = 256) -> None:
    """Writes `reply` of every batch of lines of the file descriptor `source`; None stands for a line too long.

    All lines that have come are answered before more are waited for. Blank lines get an answer too, so that each answer
    can be paired with its line.
    """
    for lines in _arrivals(source):
        for first in range(0, len(lines), batch):
            out.write(b"".join([line + b"\n" for line in reply(lines[first : first + batch])]))
            out.flush()


def _arrivals(source: int) -> Iterator[list[Line]]:
    """The lines that each read completes; a last line may lack its end."""
    unfinished = bytearray()
    over = False
    while chunk := os.read(source, _CHUNK):
        lines: list[Line] = []
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            lines.append(None if over or len(unfinished) + len(part) > MAX_LINE else bytes(unfinished) + part)
            unfinished.clear()
            over = False
        unfinished += rest
        if len(unfinished) > MAX_LINE:
            unfinished.clear()
            over = True
        yield lines
    if unfinished or over:
        yield [None if over else bytes(unfinished)]
