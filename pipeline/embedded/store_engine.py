"""One ClickHouse engine (chdb) on one folder: runs statements as a ClickHouse server would for one HTTP request.

Measured on chdb 26.9, and the reason for the shape of this file:

* A connection costs 0.4 ms and has its own settings and database, so each statement gets a fresh one. Settings of
  one request (a deduplication token above all) can then never leak into the next.
* Inline rows of ``INSERT … FORMAT x <rows>`` break beyond the parser's buffer, ``FROM input(…)`` with inline rows
  inserts nothing and reports success, and so does a streamed insert that fails (on a full disk, say). So the request's
  rows are laid down in a file for the time of the statement, and read by ``FROM INFILE`` or, for ``input('…')``, by
  ``file('…')``.
* Several statements in one text all run. They are refused here.
* Each account is a role of the engine (`store_access`), which a statement's connection takes before anything else;
  what the engine asks no right for is refused by `store_guard`.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from pipeline.clickhouse.accounts import OPERATOR, StoreAccount, account_named
from pipeline.clickhouse.native import native_string, varint
from pipeline.embedded.store_access import DATABASE, role_statement, write_access
from pipeline.embedded.store_guard import ForbiddenError, StatementGuard
from pipeline.errors import ConfigError

# The package's own Session holds one connection for all; its native module, which has no types, does not.
_chdb: Any = chdb._chdb

DEFAULT_SETTINGS = {
    "max_execution_time": "120",
    "max_memory_usage": str(4 << 30),
    "max_result_bytes": str(256 << 20),
    "max_insert_threads": "1",  # one insert, one part per partition: an insert is then seen whole or not at all
}

_INSERT = re.compile(rb"\s*INSERT\s", re.IGNORECASE)
_ROWS_FOLLOW = re.compile(rb"\s(?:FORMAT\s+(?P<format>\w+)|(?P<values>VALUES))\b[ \t]*(?:\r?\n)?", re.IGNORECASE)
_INPUT = re.compile(r"\binput\s*\(\s*('(?:[^'\\]|\\.)*')\s*\)", re.IGNORECASE)
_OUT_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b[^()]*)?;?\s*$", re.IGNORECASE)
_SETTINGS = re.compile(r"\bSETTINGS\s+\w+\s*=", re.IGNORECASE)
_SETTINGS_BEFORE_FORMAT = re.compile(rb"\bSELECT\b", re.IGNORECASE)
_KNOWN, _SHORT = 1024, 8192
"""Texts that are kept with what parsing said of them, and the longest of these."""
_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")


class StatementError(Exception):
    """The engine refused a statement; `code` is ClickHouse's error number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a request; `sql` may end in the rows of an insert. `format` is that of the answer."""

    sql: bytes
    format: str = "TabSeparated"
    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    account: str = OPERATOR


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The bytes of a result, the format they are in ("" for a statement without one), rows and bytes written."""

    body: bytes
    format: str = ""
    rows_written: int = 0
    bytes_written: int = 0
    rows_read: int = 0
    bytes_read: int = 0


class StoreEngine:
    """The folder `home`, locked for this process as long as the engine is open. Statements may run side by side."""

    def __init__(self, home: Path) -> None:
        """Raises ConfigError where another process has `home`, or the engine cannot open it."""
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._incoming = home / "incoming"
        self._path = str(home / "engine")
        self._lock = _lock(home)
        self._incoming.mkdir(exist_ok=True, mode=0o700)
        for left in self._incoming.iterdir():
            left.unlink()
        try:
            # what the first connection of a process is told holds for all
            self._anchor = _chdb.connect(f"{self._path}?config-file={write_access(home / 'access')}")
            self._anchor.query(f"CREATE DATABASE IF NOT EXISTS `{DATABASE}`", "Null")
        except RuntimeError as error:
            os.close(self._lock)
            raise ConfigError(f"the store in {home} does not open: {error}") from error
        self._guard = StatementGuard.of(self._anchor)
        self._known: dict[str, tuple[int, str]] = {}
        self._allowed: set[tuple[str, str]] = set()

    def close(self) -> None:
        """Flush and close; the folder is then free for another process."""
        self._anchor.close()
        os.close(self._lock)

    def mutates(self, sql: bytes) -> bool:
        """Tell whether a statement may change anything; what does not parse counts as a change."""
        head, _, _ = _split(sql)
        return self._classified(_text(head))[1] != "READ_ONLY"

    def run(self, statement: Statement) -> QueryResult:
        """Run one statement. Raises StatementError; nothing of a failed insert into one partition stays."""
        head, rows, row_format = _split(statement.sql)
        self._require_single(head)
        sql = _text(head)
        connection = _chdb.connect(self._path)
        try:
            self._prepare(connection, statement, incoming=rows is not None and _INPUT.search(sql) is not None)
            self._require_allowed(connection, statement, sql if rows is None else f"{sql} FORMAT {row_format}")
            if rows is None:
                return self._select(connection, statement, sql)
            return self._insert(connection, statement, sql, rows, row_format)
        except RuntimeError as error:
            raise _statement_error(error) from error
        finally:
            connection.close()

    def _require_single(self, head: bytes) -> None:
        count, _ = self._classified(_text(head))
        # Text that does not parse as a whole may still begin with a good statement, which the engine would run.
        if count > 1 or (count == 0 and b";" in head):
            raise StatementError(62, "Code: 62. DB::Exception: expected one well-formed statement. (SYNTAX_ERROR)")

    def _prepare(self, connection: Any, statement: Statement, *, incoming: bool) -> None:
        connection.query(role_statement(statement.account, incoming=incoming), "Null")
        # the engine's own default database takes the files of this machine for its tables
        database = DATABASE if statement.database in ("", "default") else statement.database
        name = database.replace("\\", "\\\\").replace("`", "\\`")
        connection.query(f"USE `{name}`", "Null")
        account = account_named(statement.account)
        settings = {**DEFAULT_SETTINGS, **(statement.settings if account is None else _bounded(account, statement))}
        for name in settings:
            if _NAME.fullmatch(name) is None:
                raise StatementError(115, f"Code: 115. DB::Exception: no such setting: {name!r}. (UNKNOWN_SETTING)")
        pairs = [f"{name} = {_quoted(value)}" for name, value in settings.items()]
        if account is not None and not account.writes:
            pairs.append("readonly = 1")
        elif statement.read_only:
            pairs.append("readonly = 2")
        connection.query(f"SET {', '.join(pairs)}", "Null")

    def _require_allowed(self, connection: Any, statement: Statement, sql: str) -> None:
        if (statement.account, sql) in self._allowed:
            return
        try:
            self._guard.check_kind(self._classified(sql)[1], sql)
            parsed = connection.query(f"EXPLAIN AST {sql}", "TabSeparatedRaw", params=dict(statement.parameters))
            self._guard.check(statement.account, parsed.bytes().decode().split("\n"))
        except ForbiddenError as error:
            text = f"account {statement.account!r} may not use {error}. (ACCESS_DENIED)"
            raise StatementError(497, f"Code: 497. DB::Exception: {text}") from None
        # a parameter may be a name, and then the same text is another statement each time
        if len(sql) <= _SHORT and "identifier" not in sql.lower():
            if len(self._allowed) >= _KNOWN:
                self._allowed.clear()
            self._allowed.add((statement.account, sql))

    def _insert(self, connection: Any, statement: Statement, sql: str, rows: bytes, row_format: str) -> QueryResult:
        path = self._incoming / uuid.uuid4().hex
        try:
            path.write_bytes(rows)
            sql = _from_file(sql, _quoted(str(path)), row_format)
            result = connection.query(sql, "Null", params=dict(statement.parameters))
            return QueryResult(b"", "", result.rows_written(), result.bytes_written())
        except OSError as error:
            raise StatementError(243, f"Code: 243. DB::Exception: {error.strerror}. (NOT_ENOUGH_SPACE)") from error
        finally:
            path.unlink(missing_ok=True)

    def _select(self, connection: Any, statement: Statement, sql: str) -> QueryResult:
        written = _OUT_FORMAT.search(sql)
        out = written[1] if written else statement.format
        parameters = dict(statement.parameters)
        result = connection.query(sql, out, params=parameters)
        body, reads = result.bytes(), self._classified(sql)[1] == "READ_ONLY"
        if not body and reads and out == "Native" and re.match(r"\s*(?:SELECT|WITH)\b", sql, re.IGNORECASE):
            body = _native_header(connection, sql[: written.start()] if written else sql, parameters)
        return QueryResult(
            body,
            out if reads else "",
            result.rows_written(),
            result.bytes_written(),
            result.rows_read(),
            result.bytes_read(),
        )

    def _classified(self, sql: str) -> tuple[int, str]:
        """Count the statements of a text, and give their class. Parsing costs more than many a small statement, and a
        program sends the same few texts again and again."""
        known = self._known.get(sql)
        if known is None:
            parsed = self._anchor.classify_query(sql)
            # a disk or a collection of its own: the engine makes a disk while it parses, whoever asks
            kind = "SECRETS" if parsed["has_secrets"] else str(parsed["query_class"]).rsplit(".", 1)[-1]
            known = parsed["statement_count"], kind
            if len(sql) <= _SHORT:
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[sql] = known
        return known


def _bounded(account: StoreAccount, statement: Statement) -> dict[str, str]:
    """The settings of a statement, as far as its account may choose them, and the bounds of the account."""
    settings = {name: str(bound.value) for name, bound in account.bounds.items()}
    for name, value in statement.settings.items():
        most = account.bounds[name].most if name in account.bounds else 0
        if most and value.isdecimal():
            settings[name] = str(min(int(value), most) or most)
        elif account.writes and name not in account.bounds:
            settings[name] = value
        elif settings.get(name) != value:
            text = f"account {account.name!r} may not set {name!r}. (READONLY)"
            raise StatementError(164, f"Code: 164. DB::Exception: {text}")
    return settings


def _from_file(sql: str, path: str, row_format: str) -> str:
    """An insert whose rows come from the quoted `path` instead of following it."""
    if _INPUT.search(sql):
        return _INPUT.sub(lambda match: f"file({path}, {_quoted(row_format)}, {match[1]})", sql, count=1)
    settings = _SETTINGS.search(sql)
    end = settings.start() if settings else len(sql)
    return f"{sql[:end]} FROM INFILE {path} {sql[end:]} FORMAT {row_format}"


def _native_header(connection: Any, sql: str, parameters: dict[str, str]) -> bytes:
    """The block without rows that a server sends and chdb leaves out; clients take the column names from it."""
    described = connection.query(f"DESCRIBE TABLE ({sql.rstrip().rstrip(';')})", "TabSeparatedRaw", params=parameters)
    columns = [line.split("\t")[:2] for line in described.bytes().decode().splitlines()]
    texts = b"".join(native_string(name) + native_string(kind) for name, kind in columns)
    return varint(len(columns)) + varint(0) + texts


def _split(sql: bytes) -> tuple[bytes, bytes | None, str]:
    """A statement, the rows that follow it (None where none can) and their format."""
    if _INSERT.match(sql) is None:
        return sql, None, ""
    follow = _ROWS_FOLLOW.search(sql)
    if follow is None:
        return sql, None, ""
    head = sql[: follow.start()]
    if _SETTINGS_BEFORE_FORMAT.search(head) and _INPUT.search(_text(head)) is None:
        return sql, None, ""
    return head, sql[follow.end() :], "Values" if follow["values"] else follow["format"].decode()


def _text(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError as error:
        raise StatementError(62, "Code: 62. DB::Exception: the statement is not UTF-8. (SYNTAX_ERROR)") from error


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _statement_error(error: RuntimeError) -> StatementError:
    text = str(error)
    code = _CODE.search(text)
    return StatementError(int(code[1]) if code else 1001, text if code else f"Code: 1001. DB::Exception: {text}")


def _lock(home: Path) -> int:
    handle = os.open(home / "store.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise ConfigError(f"another store already runs on {home}; stop it or choose another folder") from error
    return handle
