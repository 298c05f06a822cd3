"""The ClickHouse store, embedded or a server: schema, exactly-once inserts, queries. Blocking: call it from a thread.

**Exactly once.** One batch is one INSERT, guarded twice, since each guard alone has a hole:

* ``insert_deduplication_token``: atomic with the commit, but forgotten after the table's window (10,000 inserts).
* ``WHERE key NOT IN (rows of this batch)`` in the statement itself: never forgets, so a writer that was stopped for a
  day and wakes up in the middle of its insert adds nothing; but two statements at the same moment do not see each
  other. Those two carry the same token.

Then the rows are read back: their number, and the sum of their bodies' CRC-32. (Beyond a limit on file sizes the
embedded engine was seen to acknowledge a part whose file was cut short; a count alone comes from the part's header.)
A crash can leave a part of a batch that lies in two months, as an insert is atomic within a partition only; the guard
by row, not by batch, lets the next try add what is missing, under a token of its own. On a replicated cluster, set
``insert_quorum`` and ``select_sequential_consistency`` in the account's profile, or the guard may read a replica that
lags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from pipeline.clickhouse.client import store_client
from pipeline.clickhouse.insert import InsertBlock, block_of, count_stored, insert_missing
from pipeline.clickhouse.native import declared, migrations
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.errors import ConfigError, Fatal, PipelineError, Retryable
from pipeline.retry import retry_blocking
from pipeline.tables import SCHEMA_VERSION, TABLES, Table

CONNECT_S = 30.0
_NO_ACCESS = {192, 193, 194, 516}
_NO_RIGHT = 497
# Errors whose text speaks of the statement alone; the text of others may quote a stored value.
_ABOUT_SQL = {36, 42, 43, 46, 47, 60, 62, 63, 81, 115, 164, 215, 386, 456}
# Too many parts, no space, no memory, time-outs, network, read-only replica: the same statement may do later.
_PASSES = {159, 202, 209, 210, 225, 236, 241, 242, 243, 252, 285, 319, 394, 425, 999}


class ClickHouseStore:
    """One database on one server. Safe to share between threads; call `connect` or `try_connect` first."""

    def __init__(self, settings: ClickHouseEndpoint) -> None:
        self._settings = settings
        self._database = settings.database
        self._types = declared()
        self._client: Any = None

    @property
    def address(self) -> str:
        """The server's place, without anything secret."""
        return self._settings.address

    def connect(self, timeout_s: float = CONNECT_S) -> None:
        """Wait until the server answers.

        Raises ConfigError (bad URL, account refused) or Retryable (no answer within `timeout_s` seconds).
        """
        try:
            retry_blocking(self.try_connect, timeout_s, f"ClickHouse at {self.address}")
        except Retryable as error:
            raise Retryable(
                f"ClickHouse at {self.address} did not answer in {timeout_s:.0f} s (last: {error.__cause__}). "
                "Is it running, and is clickhouse.url right?"
            ) from error

    def try_connect(self) -> None:
        """Connect once. Raises ConfigError as `connect` does, Retryable without an answer."""
        try:
            self._client = store_client(self._settings)
        except ClickHouseError as error:
            fault = self._translate(error)
            if isinstance(fault, ConfigError):
                raise fault from None
            raise Retryable(str(fault)) from None

    def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def schema_version(self) -> int:
        """The newest migration recorded in the store; 0 for an empty one."""
        if not self._exists("tables", "database = {db:String} AND name = 'schema_version'"):
            return 0
        return int(self.query("SELECT max(version) FROM schema_version")[0][0])

    def apply_migrations(self) -> int:
        """Bring the store to this program's schema; returns the number of migrations applied, 0 when none was due.

        Each statement may be repeated, so a crash in between is mended by the next call. Raises ConfigError where
        the store is newer than this program.
        """
        self._command(f"CREATE DATABASE IF NOT EXISTS `{self._database}`", database=False)
        version = self._known_version()
        due = [(number, statements) for number, statements in migrations() if number > version]
        for number, statements in due:
            for statement in statements:
                self._command(statement)
            done = "INSERT INTO schema_version (version, applied) SELECT {version:UInt32}, now64(3)"
            self._command(done, {"version": number})
        return len(due)

    def check_tables(self) -> list[str]:
        """Compare the store's schema with this program's: a sentence for each difference, none where it fits."""
        if not self._exists("databases", "name = {db:String}"):
            return [f"database {self._database} is missing; run `sluice tables apply`"]
        try:
            version = self._known_version()
        except ConfigError as error:
            return [str(error)]
        problems = []
        if version < SCHEMA_VERSION:
            problems.append(f"schema version is {version}, expected {SCHEMA_VERSION}; run `sluice tables apply`")
        rows = self.query(
            "SELECT table, name, type FROM system.columns WHERE database = {db:String} LIMIT 10000",
            {"db": self._database},
        )
        live: dict[str, dict[str, str]] = {}
        for table, name, kind in rows:
            live.setdefault(table, {})[name] = kind
        for name, columns in self._types.items():
            if name not in live:
                problems.append(f"table {name} is missing")
                continue
            problems += _differences(name, columns, live[name])
        for declared_table in TABLES:
            gap = set(declared_table.columns) - set(self._types.get(declared_table.name, ()))
            if gap:
                problems.append(f"table {declared_table.name}: no migration creates {', '.join(sorted(gap))}")
        return problems

    def insert(self, table: Table, rows: Sequence[Sequence[object]], token: str) -> bool:
        """Insert the rows of one batch, each in the order of ``table.columns``; see `insert_batch`."""
        return self.insert_batch([(table, list(zip(*rows, strict=True)))], token)

    def insert_batch(self, parts: Sequence[tuple[Table, Sequence[Sequence[Any]]]], token: str) -> bool:
        """Make sure that the store holds one batch exactly once: in each table all rows of its origin and batch, at
        most 64 MiB.

        Per table one sequence per column of ``table.columns``; times in Unix ms; `token` is equal for equal rows. The
        tables are written in order. False where every row was there before. Returns only when the rows have been read
        back. Raises Retryable (nothing is known: do it again) or Fatal (a value of the wrong type, or the store holds
        other rows than the batch).
        """
        given = [(table, columns) for table, columns in parts if columns and columns[0]]
        blocks = [block_of(table, self._types[table.name], columns) for table, columns in given]
        if not blocks:
            return False
        wrote = [self._insert_missing(block, token) for block in blocks]
        stored = self._stored(blocks)
        for place, block in enumerate(blocks):
            if stored[place][0] < block.rows:
                # The token is known but rows are missing: a batch that was cut off between two partitions.
                wrote.append(self._insert_missing(block, f"{token}:{stored[place][0]}"))
        if len(wrote) > len(blocks):
            stored = self._stored(blocks)
        for block, (rows, checksum) in zip(blocks, stored, strict=True):
            _require_stored(block, rows, checksum)
        return any(wrote)

    def count_batch(self, origin: str, batch: int) -> int:
        """Count the rows that the store holds of one sealed batch."""
        sql = "SELECT count() FROM records WHERE origin = {origin:String} AND batch = {batch:UInt64}"
        return int(self.query(sql, {"origin": origin, "batch": batch})[0][0])

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a SELECT; values go in as ``{name:Type}`` parameters, never into the text."""
        return self.query_named(sql, parameters)[1]

    def query_named(
        self, sql: str, parameters: Mapping[str, object] | None = None
    ) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """The columns' names, and the rows as ``query`` gives them."""
        try:
            answer = self._connected().query(sql, parameters=dict(parameters or {}))
            return tuple(answer.column_names), list(answer.result_rows)
        except ClickHouseError as error:
            raise self._translate(error) from None

    def command(self, sql: str) -> None:
        """Run a statement that gives no rows. Errors as ``query``."""
        self._command(sql)

    def _exists(self, of: str, where: str) -> bool:
        """Asked outside the database, which may not exist yet."""
        sql = f"SELECT count() > 0 FROM system.{of} WHERE {where}"  # noqa: S608 - both are constants of this file
        try:
            answer = self._connected().command(sql, parameters={"db": self._database}, use_database=False)
        except ClickHouseError as error:
            raise self._translate(error) from None
        return bool(answer)

    def _known_version(self) -> int:
        version = self.schema_version()
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"the store at {self.address} has schema version {version}, this program knows {SCHEMA_VERSION}; "
                "run the newer program"
            )
        return version

    def _insert_missing(self, block: InsertBlock, token: str) -> bool:
        settings = {"insert_deduplication_token": token, "max_insert_threads": 1, "max_threads": 1}
        summary = self._command(insert_missing(block), block.scope(0), block.content, settings)
        return int(summary.get("written_rows", 0)) > 0

    def _stored(self, blocks: Sequence[InsertBlock]) -> list[tuple[int, int]]:
        scopes = {name: value for place, block in enumerate(blocks) for name, value in block.scope(place).items()}
        return [(int(rows), int(checksum)) for _, rows, checksum in self.query(count_stored(blocks), scopes)]

    def _command(
        self,
        sql: str,
        parameters: dict[str, Any] | None = None,
        rows: bytes | None = None,
        settings: dict[str, Any] | None = None,
        database: bool = True,
    ) -> dict[str, Any]:
        try:
            done = self._connected().command(
                sql, parameters=parameters, data=rows, settings=settings, use_database=database
            )
        except ClickHouseError as error:
            raise self._translate(error) from None
        return getattr(done, "summary", {})

    def _connected(self) -> Any:
        if self._client is None:
            raise Fatal("ClickHouse.connect() comes first")
        return self._client

    def _translate(self, error: ClickHouseError) -> PipelineError:
        """By fault. The engine's text goes along only where it cannot quote a stored value."""
        code = getattr(error, "code", None)
        if code == _NO_RIGHT:
            return ConfigError(
                f"ClickHouse at {self.address} lets user {self._settings.user!r} do less than this program needs "
                f"({_named(error)}); see: sluice tables accounts check"
            )
        if code in _NO_ACCESS:
            return ConfigError(
                f"ClickHouse at {self.address} refuses user {self._settings.user!r} (code {code}); check the password"
            )
        if code is None and isinstance(error, (OperationalError, DatabaseError)):
            return Retryable(f"ClickHouse at {self.address} gave no answer ({_reason(error)})")
        what = _named(error)
        if code in _PASSES:
            return Retryable(f"ClickHouse at {self.address} cannot do it now: {what}")
        detail = f": {str(error)[:300]}" if code in _ABOUT_SQL else ""
        return Fatal(f"ClickHouse at {self.address} refuses a statement of this program, {what}{detail}")


def _require_stored(block: InsertBlock, rows: int, checksum: int) -> None:
    name, batch = block.table.name, f"{block.origin} batch {block.batch}"
    if rows != block.rows:
        raise Fatal(
            f"table {name} holds {rows} rows of {batch}, expected {block.rows}; "
            "run `sluice audit verify` and look for another writer"
        )
    if checksum != block.checksum:
        raise Fatal(
            f"table {name} holds other bodies of {batch} than were sent; "
            "run `sluice audit verify` and check the store's disk"
        )


def _named(error: ClickHouseError) -> str:
    return f"code {getattr(error, 'code', None)} {getattr(error, 'name', None) or ''}".rstrip()


def _reason(error: BaseException) -> str:
    """The innermost cause's type, and its text where the operating system wrote it."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error) if isinstance(error, OSError) else type(error).__name__


def _differences(table: str, expected: Mapping[str, str], live: Mapping[str, str]) -> list[str]:
    problems = []
    for name, kind in expected.items():
        if name not in live:
            problems.append(f"table {table}: column {name} ({kind}) is missing")
        elif live[name] != kind:
            problems.append(f"table {table}: column {name} is {live[name]}, expected {kind}")
    return problems
