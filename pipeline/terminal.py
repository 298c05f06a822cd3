"""One way to print: tables and fields in a terminal, plain columns in a pipe, JSON where a program reads.

Times are shown in UTC; JSON keeps the numbers. Colours are for a terminal without ``NO_COLOR``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    # drawing is for people: stages and pipes never pay for its import
    from rich.console import Console
    from rich.table import Table

    from pipeline.audit.faults import Report

_UNBOUNDED = 100_000
_MIN_RECORD_COLUMNS = 4
_FOLDED = 1.5
"""Rows of so many columns are drawn as blocks of lines where the table is so many times as wide as the screen."""


class UnixMs(int):
    """Milliseconds since 1970: a time where people read, the number in JSON."""


class UnixSeconds(int):
    """Seconds since 1970: a time where people read, the number in JSON."""


class StoredTime(str):
    """A time as ClickHouse writes it, in UTC; empty for none. JSON keeps the text."""

    __slots__ = ()


class Colored:
    """A cell with a colour: drawn in a terminal alone. JSON gets ``value``, people read ``text``."""

    def __init__(self, value: object, text: str, color: str) -> None:
        self.value = value
        self.text = text
        self.color = color

    def __str__(self) -> str:
        return self.text


def time_text(time: datetime) -> str:
    """A time as people read it: ``2026-12-01 10:31:08Z``. One without a zone is UTC."""
    zoned = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return zoned.strftime("%Y-%m-%d %H:%M:%SZ")


def cell_text(cell: object) -> str:
    """The text of one cell for a person."""
    match cell:
        case UnixMs():
            return time_text(datetime.fromtimestamp(int(cell) / 1000, UTC))
        case UnixSeconds():
            return time_text(datetime.fromtimestamp(int(cell), UTC))
        case datetime():
            return time_text(cell)
        case StoredTime() if cell:
            return time_text(datetime.fromisoformat(cell))
    return str(cell)


def console() -> Console:
    """Colours and width of the terminal; neither in a pipe."""
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, as_json: bool = False) -> None:
    """Print rows under their headings. JSON is a list of objects."""
    if as_json:
        document([dict(zip(columns, row, strict=True)) for row in rows])
        return
    if not sys.stdout.isatty():
        print("\t".join(columns))
        for row in rows:
            print("\t".join(_line(cell) for cell in row))
        return
    if not rows:
        print(f"{title or columns[0]}: none")
        return
    if len(rows) == len(columns) == 1:
        # a key or a secret is copied from here: nothing may be drawn around it, wrapped or cut
        print(f"{title or columns[0]}:\n{_line(rows[0][0])}")
        return
    _draw(title, columns, rows)


def fields(title: str, values: Mapping[str, object], *, as_json: bool = False, file: TextIO | None = None) -> None:
    """Print names and values, one pair a line. JSON is one object."""
    if as_json:
        document(dict(values))
        return
    if title:
        print(title, file=file)
    width = max(map(len, values), default=0)
    indent = "  " if title else ""
    for name, value in values.items():
        print(f"{indent}{name:{width}}  {_line(value)}".rstrip(), file=file)


def note(text: str) -> None:
    """Say what was done, beside the output that a program may read."""
    print(f"sluice: {text}", file=sys.stderr)


def document(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


class StatusLine:
    """One line on standard error that is written over, for a person who waits."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._enabled:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        self.show("")


def audit_report(report: Report) -> None:
    """Print the counts of a verification, its faults, and the verdict."""
    names = ("origins", "batches", "rows", "skipped", "admitted", "denied", "ended", "open", "derived", "overshoot")
    table("audit", ("what", "count"), [(name, getattr(report, name)) for name in names])
    for fault in report.faults:
        print(f"FAULT {fault.origin} batch {fault.batch} leaf {fault.leaf}: {fault.what}")
    unlisted = report.faults_total - len(report.faults)
    if unlisted > 0:
        print(f"and {unlisted} more faults")
    if report.not_derivable:
        print(f"{report.not_derivable} decisions are of another decider version: not re-derivable by this build")
    print("the log verifies" if report.ok else f"{report.faults_total} faults: the log does not verify")


def _plain(value: object) -> object:
    return value.value if isinstance(value, Colored) else str(value)


def _draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    screen = console()
    drawn = _grid(title, columns, rows)
    width = screen.measure(drawn, options=screen.options.update(max_width=_UNBOUNDED)).maximum
    if len(columns) >= _MIN_RECORD_COLUMNS and width > _FOLDED * screen.width:
        for number, row in enumerate(rows, 1):
            filled = {name: cell for name, cell in zip(columns, row, strict=True) if cell_text(cell)}
            fields(f"{title or 'row'} {number} of {len(rows)}", filled)
        return
    screen.print(drawn)


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(harmless(cell_text(cell), keep="\n"), _color(cell)) for cell in row))
    return drawn


def _is_number(cell: object) -> bool:
    if isinstance(cell, Colored) and cell.color:
        return False
    value = cell.value if isinstance(cell, Colored) else cell
    return isinstance(value, int | float) and not isinstance(value, UnixMs | UnixSeconds)


def _color(cell: object) -> str:
    return cell.color if isinstance(cell, Colored) else ""


def _line(cell: object) -> str:
    """On one line, so that a row stays a row."""
    return harmless(" ".join(cell_text(cell).split("\n")))


def harmless(text: str, keep: str = "") -> str:
    """Control characters spelled out: texts come from models and callers, and could steer the reader's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
