"""A folder full of modules named like the standard library, like ours and like what we depend on, all of which tell."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

OURS = {"pipeline", "detectors", "inference", "dashboards", "tests"}
THEIRS = {
    "aiohttp",
    "aiokafka",
    "chdb",
    "clickhouse_connect",
    "faust",
    "msgspec",
    "numpy",
    "pydantic",
    "torch",
    "uvloop",
}
ALL = frozenset(OURS | THEIRS | set(sys.stdlib_module_names))


def hostile_folder(folder: Path, names: Iterable[str] = ALL) -> Path:
    """Fill ``folder`` and give the file to which each module adds its name when it is imported."""
    record = folder.parent / "imported"
    source = f"with open({str(record)!r}, 'a') as record:\n    record.write(__name__ + '\\n')\n"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(source)
    return record


def imported(record: Path) -> list[str]:
    """Give the names of the modules that were imported."""
    return record.read_text().split() if record.exists() else []
