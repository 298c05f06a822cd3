"""``sluice detect``: the detectors over lines of JSON, one answer per line."""

from __future__ import annotations

from typing import Any

from pipeline.cli import detect_accounts, detect_pii


def add(commands: Any) -> None:
    detect = commands.add_parser("detect", help="run the detectors over lines of JSON")
    acts = detect.add_subparsers(metavar="WHAT", required=True)
    detect_accounts.add(acts)
    detect_pii.add(acts)
