"""Tables in a terminal, plain columns in a pipe, JSON where a program reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # drawing is for people: stages and pipes never pay for its import
    from rich.console import Console

    from pipeline.audit.faults import Report


def console() -> Console:
    """Colours and width of the terminal; neither in a pipe."""
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, as_json: bool = False) -> None:
    """Rows under their headings. JSON is a list of objects."""
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


def _draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title or None, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        drawn.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_harmless(str(cell), keep="\n")) for cell in row))
    console().print(drawn)


def _line(cell: object) -> str:
    """On one line, so that a row stays a row."""
    return _harmless(" ".join(str(cell).split("\n")), keep="")


def _harmless(text: str, keep: str) -> str:
    """Control characters spelled out: texts come from models and callers, and could steer the reader's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def document(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def audit_report(report: Report) -> None:
    """The account, then the verdict."""
    names = ("origins", "batches", "rows", "skipped", "admitted", "denied", "ended", "open", "derived", "overshoot")
    rows = [(name.replace("_", " "), getattr(report, name)) for name in names]
    table("audit", ("what", "count"), rows)
    for fault in report.faults:
        print(f"FAULT {fault.origin} batch {fault.batch} leaf {fault.leaf}: {fault.what}")
    if report.not_derivable:
        print(f"{report.not_derivable} decisions are of another decider version: not re-derivable by this build")
    print("the log verifies" if report.ok else f"{report.faults_total} faults: the log does not verify")
