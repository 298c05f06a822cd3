"""``python -m tests.bench [FIGURE ...] [--json PATH]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

from pipeline import terminal
from tests.bench.rows import HEAD, Measurement

FIGURES = (
    "admit",
    "limits",
    "floods",
    "seal",
    "sink",
    "stack",
    "engine",
    "inference",
    "isolation",
    "prompts",
    "pii",
    "accounts",
    "ledger",
    "control",
    "kafka_security",
)


def main() -> int:
    """Measure the figures that were asked for; with ``--strict``, exit status 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure against the goals.")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; without any: all")
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where a goal is missed")
    asked = parser.parse_args()
    unknown = set(asked.figures) - set(FIGURES)
    if unknown:
        parser.error(f"no such figure: {', '.join(sorted(unknown))}; expected some of {', '.join(FIGURES)}")
    rows: list[Measurement] = []
    for name in asked.figures or FIGURES:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        # as they come: a figure takes minutes, and one that is cut short has told what it had
        for row in importlib.import_module(f"tests.bench.{name}").measure():
            rows.append(row)
            print(" | ".join(row.cells()), file=sys.stderr, flush=True)
    terminal.table("benchmarks", HEAD, [row.cells() for row in rows])
    if asked.json:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        asked.json.write_text(json.dumps({**machine, "rows": [row.document() for row in rows]}, indent=1) + "\n")
    return int(asked.strict and any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
