"""Every account of the store: one table of what each reads and writes, and within which bounds.

The embedded store enforces it, ``sluice tables accounts apply`` gives it to a ClickHouse server, and a test walks it.
An account has no right that is not here: no table functions, no files, no addresses, no dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.tables import MANIFESTS, RECORDS

OPERATOR = "sluice"
"""Creates tables and changes them; at a server its administrator made it, and its rights are not touched here."""
SEAL = "seal"
VIEW = "view"
AUDIT = "audit"

_VERSION = "schema_version"
_COMPARED = ("origin", "batch", "leaf", "time", "body")


@dataclass(frozen=True, slots=True)
class TableRight:
    """``operation`` on a table of the database, or on some of its columns alone."""

    operation: str
    table: str
    columns: tuple[str, ...] = ()
    """Empty: all."""

    def on(self, database: str) -> str:
        """Give it as GRANT and REVOKE write it."""
        columns = f"({', '.join(f'`{name}`' for name in self.columns)})" if self.columns else ""
        return f"{self.operation}{columns} ON `{database}`.`{self.table}`"


@dataclass(frozen=True, slots=True)
class Bound:
    """A setting's value, and the most that a statement may ask for instead; 0: it may ask for nothing else."""

    value: int
    most: int = 0


@dataclass(frozen=True, slots=True)
class StoreAccount:
    """One account. ``use`` says in a line who has it."""

    name: str
    use: str
    rights: tuple[TableRight, ...] = ()
    bounds: Mapping[str, Bound] = field(default_factory=dict)
    writes: bool = False


_READING = {
    "max_memory_usage": Bound(2_000_000_000),
    "max_result_bytes": Bound(256 << 20),
    "max_threads": Bound(2, 8),
}

ACCOUNTS = (
    StoreAccount(
        SEAL,
        "seal inserts sealed batches, and reads back what it compares",
        (
            TableRight("INSERT", RECORDS.name),
            TableRight("INSERT", MANIFESTS.name),
            TableRight("SELECT", RECORDS.name, _COMPARED),
            TableRight("SELECT", MANIFESTS.name, tuple(name for name in _COMPARED if name in MANIFESTS.columns)),
            TableRight("SELECT", _VERSION),
        ),
        {"max_execution_time": Bound(120, 120), "max_memory_usage": Bound(4 << 30)},
        writes=True,
    ),
    StoreAccount(
        VIEW,
        "dashboards and the commands that show what happened",
        (
            TableRight("SELECT", RECORDS.name),
            TableRight("SELECT", MANIFESTS.name, tuple(c for c in MANIFESTS.columns if c not in ("root", "body"))),
        ),
        {**_READING, "max_execution_time": Bound(30, 60)},
    ),
    StoreAccount(
        AUDIT,
        "sluice audit verify reads all that is signed",
        (TableRight("SELECT", RECORDS.name), TableRight("SELECT", MANIFESTS.name)),
        {**_READING, "max_execution_time": Bound(120, 600)},
    ),
)
NAMES = (OPERATOR, *(account.name for account in ACCOUNTS))


def account_named(name: str) -> StoreAccount | None:
    """Give an account of the table; None for the operator's and for any other name."""
    return next((account for account in ACCOUNTS if account.name == name), None)
