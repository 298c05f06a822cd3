"""``sluice audit verify``: recompute the signed log and say whether anything in it was touched."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from pipeline import terminal, wiring
from pipeline.clickhouse.auditor import as_document
from pipeline.config import Settings
from pipeline.errors import ConfigError


def add(commands: Any) -> None:
    audit = commands.add_parser("audit", help="verify the signed log").add_subparsers(metavar="ACT", required=True)
    verify = audit.add_parser(
        "verify",
        help="check every signature, hash and column, and derive every decision again",
        description="Reads manifests and rows from ClickHouse and recomputes the log: every checkpoint bears both "
        "signatures, every batch follows the one before, every row gives its leaf, every typed column is that of the "
        "sealed bytes, every decision comes out of the log again byte for byte. Exit 1 where anything differs.",
    )
    verify.add_argument("--keys", type=Path, help="file of verifier keys, one a line; else those of this deployment")
    verify.add_argument("--source", action="store_true", help="also compare with the records that Kafka still holds")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(act=_verify)


def _verify(arguments: argparse.Namespace, settings: Settings) -> int:
    keys = _keys(arguments.keys) if arguments.keys else asyncio.run(wiring.log_keys(settings))
    interactive = sys.stderr.isatty() and not arguments.json

    def say(text: str) -> None:
        if interactive:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    report = wiring.verify(settings, keys, say, with_source=arguments.source)
    if interactive:
        print("\r\x1b[K", end="", file=sys.stderr)
    if arguments.json:
        terminal.document(as_document(report))
    else:
        terminal.audit_report(report)
    return 0 if report.ok else 1


def _keys(path: Path) -> list[str]:
    try:
        found = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--keys {path}: {getattr(error, 'strerror', None) or 'expected text in UTF-8'}") from None
    if not found:
        raise ConfigError(f"--keys {path}: expected verifier keys, one a line; the file is empty")
    return found
