"""``sluice detect``: the detectors on rows from standard input, one JSON line out per line in."""

from __future__ import annotations

from typing import Any

from pipeline.cli import detect_accounts


def add(commands: Any) -> None:
    detect = commands.add_parser("detect", help="run a detector on rows from standard input")
    subcommands = detect.add_subparsers(title="detectors", metavar="DETECTOR", required=True)
    detect_accounts.add(subcommands)
