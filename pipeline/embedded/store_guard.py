"""Refuses statements that the engine's own access control would let through.

The engine takes itself for a program of the machine's user: its scalar function ``file()``, ``INTO OUTFILE`` and
``FROM INFILE`` ask for no right, system tables are open, and so is a table function that names tables by a pattern.
A statement is therefore looked at as the engine itself parses it (``EXPLAIN AST``). What a value brings in cannot
remove a line of that, only add one; so each rule refuses a line that is there, or demands one of a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.clickhouse.accounts import AUDIT, OPERATOR, SEAL, VIEW

_READS = (
    "SelectWithUnionQuery",
    "DescribeQuery",
    "ExistsTableQuery",
    "ExistsDatabaseQuery",
    "ShowTables",
    "ShowCreateTableQuery",
    "Explain",
)
_CHANGES = (
    "CreateQuery",
    "AlterQuery",
    "DropQuery",
    "TruncateQuery",
    "Rename",
    "OptimizeQuery",
    "DeleteQuery",
    "UpdateQuery",
    "CheckQuery",
)
_STATEMENTS: Mapping[str, frozenset[str]] = {
    OPERATOR: frozenset((*_READS, "InsertQuery", *_CHANGES)),
    SEAL: frozenset((*_READS, "InsertQuery")),
    VIEW: frozenset(_READS),
    AUDIT: frozenset(_READS),
}
_TABLE_FUNCTIONS: Mapping[str, frozenset[str]] = {
    OPERATOR: frozenset(("input", "numbers", "zeros", "values")),
    SEAL: frozenset(("input",)),
    VIEW: frozenset(),
    AUDIT: frozenset(),
}
_ENGINES = frozenset(
    ("MergeTree", "ReplacingMergeTree", "SummingMergeTree", "AggregatingMergeTree", "Memory", "Atomic")
)
_ALTER = re.compile(r"\s*ALTER\s+TABLE\s", re.IGNORECASE)
_ALTERS = ("ADD_", "MODIFY_", "DROP_", "RENAME_", "RESET_", "COMMENT_", "MATERIALIZE_", "CLEAR_", "DELETE", "UPDATE")
_SYSTEM = ("system.", "information_schema.")
_FILES = "default."
"""The engine takes files of this machine for the tables of this database."""
_SYSTEM_TABLES = frozenset(
    f"system.{name}" for name in ("columns", "databases", "settings", "tables", "one", "numbers")
)
"""What a client asks when it connects, and a query editor when it lists tables."""
_OUTWARD = re.compile(r"file|ai[a-z]+|catboostevaluate|showcertificate|getclienthttpheader", re.IGNORECASE)
"""Scalar functions that reach a file, an address, or the request of somebody else."""
_NODE = re.compile(r"\s*(\w+) *(.*?)(?: \(alias .*)?(?: \(children \d+\))?")


class ForbiddenError(Exception):
    """The account may not run the statement."""


class StatementGuard:
    """Knows which statements the accounts of one engine may ask."""

    def __init__(self, table_functions: Iterable[str], scalar_functions: Iterable[str]) -> None:
        scalars = {name.lower() for name in scalar_functions}
        self._table_functions = {name.lower() for name in table_functions} - scalars

    @classmethod
    def of(cls, connection: Any) -> StatementGuard:
        """Ask the engine for its functions."""

        def names(table: str) -> list[str]:
            found = connection.query(f"SELECT name FROM system.{table}", "TabSeparatedRaw")  # noqa: S608 - a constant
            return str(found.bytes().decode()).split()

        return cls(names("table_functions"), names("functions"))

    def check_kind(self, kind: str, sql: str) -> None:
        """Look at the class of a statement, before the engine does more with it. Raises ForbiddenError.

        One that does not parse is left to the engine, which says why; it has no root then.
        """
        # with settings of its own an ALTER is of the class of statements that write a file
        alters = kind == "CONTROL" and _ALTER.match(sql) is not None and "outfile" not in sql.lower()
        if kind not in ("READ_ONLY", "MUTATING", "UNKNOWN") and not alters:
            raise ForbiddenError(f"statements of this kind ({kind})")

    def check(self, account: str, lines: list[str]) -> None:
        """Look at a statement as the engine has parsed it. Raises ForbiddenError."""
        root = lines[0].split(" ", 1)[0]
        if root not in _STATEMENTS[account]:
            raise ForbiddenError(f"statements of this kind ({root})")
        before = ""
        for line in lines:
            found = _NODE.fullmatch(line)
            if found is None:
                continue
            node, name = found[1], found[2].split(" ", 1)[0]
            self._check_node(account, root, before, line, node, name)
            before = node if node != "Storage" else line.strip()

    def _check_node(self, account: str, root: str, before: str, line: str, node: str, name: str) -> None:
        plain = name.lower()
        if before.startswith("Storage definition") and node == "Function":
            if name not in _ENGINES:
                raise ForbiddenError(f"engine {name}")
            return
        allowed = _TABLE_FUNCTIONS[account]
        if node.startswith("Function"):
            if _OUTWARD.fullmatch(plain) or (plain in self._table_functions and plain not in allowed):
                raise ForbiddenError(f"function {name}()")
            if before == "TableExpression" and plain not in allowed:
                raise ForbiddenError(f"table function {name}()")
        if node == "ColumnsApplyTransformer" or (node == "Identifier" and _OUTWARD.fullmatch(plain)):
            raise ForbiddenError("functions by their name alone")
        if node in ("Identifier", "TableIdentifier") and not self._may_name(account, plain):
            raise ForbiddenError(f"table {name}")
        if node == "AlterCommand" and not name.startswith(_ALTERS):
            raise ForbiddenError(f"ALTER TABLE with {name}")
        if root == "InsertQuery" and node == "Literal" and line.startswith(" Literal"):
            raise ForbiddenError("FROM INFILE")

    def _may_name(self, account: str, name: str) -> bool:
        """Tell whether ``name``, in lower case, is a column or table that the account may speak of."""
        if name.startswith(_FILES):
            return False
        return account == OPERATOR or not name.startswith(_SYSTEM) or name in _SYSTEM_TABLES
