"""``sluice audit verify``: recompute the signed log and say whether anything in it was touched."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.cli.arguments import add_command, add_group
from pipeline.clickhouse.auditor import as_document
from pipeline.config import Settings
from pipeline.errors import ConfigError


def add(commands: Any) -> None:
    """Add ``audit``."""
    audit = add_group(commands, "audit", "verify the signed log")
    verify = add_command(
        audit,
        "verify",
        "check every signature, hash and column, and derive every decision again",
        _verify,
        "Reads manifests and rows from ClickHouse and recomputes the log: every checkpoint bears both signatures, "
        "every batch follows the one before, every row gives its leaf, every typed column is that of the sealed bytes, "
        "every decision comes out of the log again byte for byte. Exit 1 where anything differs.",
    )
    verify.add_argument(
        "--keys",
        type=Path,
        help="file of verifier keys, one a line, oldest first, as sluice keys show prints them (default: those of the "
        "deployment)",
    )
    verify.add_argument("--source", action="store_true", help="compare with the records that Kafka still holds, too")


def _verify(arguments: argparse.Namespace, settings: Settings) -> int:
    keys = _keys(arguments.keys) if arguments.keys else asyncio.run(wiring.log_keys(settings))
    progress = terminal.StatusLine(enabled=sys.stderr.isatty() and not arguments.json)
    report = wiring.verify(settings, keys, progress.show, with_source=arguments.source)
    progress.clear()
    if arguments.json:
        terminal.document(as_document(report))
    else:
        terminal.audit_report(report)
    return 0 if report.ok else 1


def _keys(path: Path) -> list[str]:
    try:
        keys = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "no text in UTF-8"
        raise ConfigError(f"--keys {path}: expected verifier keys, one a line, got: {problem}; give another") from None
    if not keys:
        raise ConfigError(f"--keys {path}: expected verifier keys, one a line, got an empty file; give another")
    return keys
