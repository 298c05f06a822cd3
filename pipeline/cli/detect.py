"""``sluice detect``: what the detectors say of rows of JSON, one line out per line in."""

from __future__ import annotations

from typing import Any

from pipeline.cli import detect_pii


def add(commands: Any) -> None:
    detect = commands.add_parser("detect", help="run the detectors over rows of JSON on standard input")
    subcommands = detect.add_subparsers(title="detectors", metavar="DETECTOR", required=True)
    detect_pii.add(subcommands)
