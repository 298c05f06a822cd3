"""Commands and arguments made one way: a summary in the imperative, ``--json``, numbers within bounds."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from pipeline.config import Settings

Act = Callable[[argparse.Namespace, Settings], int]
BY = "operator whose key signs and who is named for it (default: keys.operator)"


def add_group(commands: Any, name: str, summary: str, description: str = "", epilog: str = "") -> Any:
    """Add a command that has commands of its own, and give the place to add them.

    ``summary`` begins with a verb in the imperative. ``description`` and ``epilog`` are shown as they stand.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{sentence(summary)}\n\n{description}".strip(),
        epilog=epilog or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(group: Any, name: str, summary: str, act: Act, description: str = "") -> argparse.ArgumentParser:
    """Add a command that prints a table, or JSON with ``--json``; ``act`` carries it out and gives the exit code."""
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=summary, description=f"{sentence(summary)} {description}".strip()
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.set_defaults(act=act, verb=name)
    return parser


def sentence(summary: str) -> str:
    """A summary as the first sentence of a description."""
    return f"{summary[0].upper()}{summary[1:]}."


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds. ``choices=range(...)`` would list every one of them in its error."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(
                f"expected {low:,} to {high:,}, got {text[:40]!r}; give a number in between"
            )
        return number

    return read


PORT = whole(1, 65_535)
