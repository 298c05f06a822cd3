"""The embedded store's accounts, walked: each may do to a table what the table of accounts says, and nothing else."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.clickhouse import grants
from pipeline.clickhouse.accounts import ACCOUNTS, AUDIT, NAMES, OPERATOR, SEAL, VIEW, StoreAccount
from pipeline.clickhouse.native import declared
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.local_accounts import LocalAccounts
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.errors import ConfigError
from pipeline.interpreter import module_command, module_environment
from pipeline.keys.files import create_log_keys
from tests.patience import STUCK_S

TABLES = tuple(declared())
REFUSED = {"497", "164", "452"}
"""ClickHouse's codes for a right that is missing, a session that only reads, and a setting that is fixed."""


class Site:
    """A store with its tables and accounts, and a file beside it that nobody may read."""

    def __init__(self, home: Path, supervisor: Supervisor) -> None:
        self.accounts = LocalAccounts(home / "keys", authenticates=True)
        self.accounts.ensure_passwords()
        self.store = EmbeddedStore(
            StoreSettings(home / "store", free_port(), passwords=self.accounts.folder), supervisor
        )
        self.store.start()
        self.secret = home / "secret.csv"
        self.secret.write_text("4242\n")
        operator = self.client(OPERATOR)
        operator.apply_migrations()
        operator.command("CREATE TABLE other (a UInt64) ENGINE = MergeTree ORDER BY a")
        operator.close()

    def client(self, account: str, password: str = "") -> ClickHouseStore:
        password = password or (self.accounts.folder / account).read_text()
        found = ClickHouseStore(ClickHouseEndpoint(self.store.url, account, password))
        found.connect(20)
        return found

    def ask(self, account: str, sql: str, **parameters: str) -> tuple[str, str]:
        """ClickHouse's code, '' where it did as asked, and the answer."""
        login = b64encode(f"{account}:{(self.accounts.folder / account).read_text()}".encode()).decode()
        url = f"{self.store.url}/?{urllib.parse.urlencode(parameters)}"
        call = urllib.request.Request(url, sql.encode(), {"Authorization": f"Basic {login}"})
        try:
            with urllib.request.urlopen(call, timeout=STUCK_S) as answer:
                return "", answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.headers["X-ClickHouse-Exception-Code"], error.read().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    supervisor = Supervisor()
    try:
        yield Site(tmp_path_factory.mktemp("accounts"), supervisor)
    finally:
        supervisor.stop_all()


def granted(account: StoreAccount, operation: str, table: str, column: str) -> bool:
    return any(
        right.operation == operation and right.table == table and (not right.columns or column in right.columns)
        for right in account.rights
    )


@pytest.mark.parametrize("table", [*TABLES, "other"])
@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account.name)
def test_each_account_reads_and_writes_what_the_table_says(site: Site, account: StoreAccount, table: str) -> None:
    for column in declared().get(table, {"a": ""}):
        code, answer = site.ask(account.name, f"SELECT `{column}` FROM `{table}` LIMIT 0")
        assert (code == "") == granted(account, "SELECT", table, column), (column, answer)
    names = ", ".join(f"`{name}`" for name in declared().get(table, {"a": ""}))
    code, answer = site.ask(account.name, f"INSERT INTO `{table}` ({names}) SELECT {names} FROM `{table}` WHERE 0")
    reads_all = all(granted(account, "SELECT", table, column) for column in declared().get(table, {"a": ""}))
    assert (code == "") == (granted(account, "INSERT", table, "") and reads_all), answer
    code, answer = site.ask(account.name, f"INSERT INTO `{table}` ({names}) FORMAT Null\n")
    assert (code not in REFUSED) == granted(account, "INSERT", table, ""), answer


@pytest.mark.parametrize("account", [account.name for account in ACCOUNTS])
@pytest.mark.parametrize("table", [*TABLES, "other"])
@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE {0} ADD COLUMN more UInt8",
        "ALTER TABLE {0} DELETE WHERE 1",
        "ALTER TABLE {0} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 0",
        "DELETE FROM {0} WHERE 1",
        "DROP TABLE {0}",
        "TRUNCATE TABLE {0}",
        "RENAME TABLE {0} TO elsewhere",
        "OPTIMIZE TABLE {0}",
        "CREATE TABLE copy_of_{0} ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM {0}",
    ],
)
def test_none_but_the_operator_changes_a_table(site: Site, account: str, table: str, sql: str) -> None:
    assert site.ask(account, sql.format(table))[0] in REFUSED


OUTWARD = (
    "SELECT * FROM file('{0}', 'CSV', 'a UInt64')",
    "SELECT * FROM file('{0}', 'LineAsString')",
    "SELECT file('{0}')",
    "SELECT `\\x66ile`('{0}')",
    "SELECT /* file */ FILE('{0}')",
    "SELECT arrayMap(file, ['{0}'])",
    "SELECT arrayMap(x -> file(x), ['{0}'])",
    "SELECT * APPLY(file) FROM (SELECT '{0}' AS path)",
    "WITH '{0}' AS path SELECT (SELECT file(path))",
    "SELECT 1 UNION ALL SELECT length(file('{0}'))",
    "SELECT 1 AS `x\n Storage definition`, file('{0}')",
    "SELECT file('{0}') FORMAT JSON",
    "SELECT file('{0}') FORMAT Null",
    "DESCRIBE TABLE file('{0}')",
    "DESCRIBE file('{0}', 'CSV')",
    "EXPLAIN SELECT file('{0}')",
    "SELECT * FROM `{0}`",
    "SELECT * FROM default.`{0}`",
    "SELECT 1 WHERE 1 IN default.`{0}`",
    "SELECT 1 WHERE 1 IN file('{0}', 'CSV', 'a UInt64')",
    "SELECT 1 INTO OUTFILE '{0}.out' FORMAT CSV",
    "SELECT 1 INTO/**/OUTFILE '{0}.out'",
    "EXPLAIN SELECT 1 INTO OUTFILE '{0}.out'",
    "INSERT INTO other FROM INFILE '{0}' FORMAT CSV",
    "INSERT INTO other SELECT * FROM file('{0}', 'CSV', 'a UInt64')",
    "INSERT INTO other VALUES (toUInt64(file('{0}')))",
    "INSERT INTO FUNCTION file('{0}.out', 'CSV', 'a UInt64') SELECT 1",
    "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '{0}'",
    "SELECT 1 FORMAT Protobuf SETTINGS format_schema = '{0}:A'",
    "SELECT * FROM url('http://127.0.0.1:9/', 'CSV', 'a UInt64')",
    "SELECT * FROM urlCluster('default', 'http://127.0.0.1:9/', 'CSV', 'a UInt64')",
    "SELECT * FROM s3('http://127.0.0.1:9/bucket/key', 'CSV', 'a UInt64')",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:9', 'c', 'b', 'account', 'key')",
    "SELECT * FROM mysql('127.0.0.1:9', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:9', 'a', 'b', 'c', 'd')",
    "SELECT * FROM redis('127.0.0.1:9', 'a', 'a UInt64')",
    "SELECT * FROM sqlite('{0}', 'a')",
    "SELECT * FROM remote('127.0.0.1', 'sluice.other')",
    "SELECT * FROM icebergLocal('{0}')",
    "SELECT * FROM filesystem('{0}')",
    "SELECT * FROM executable('x', 'CSV', 'a UInt64')",
    "SELECT * FROM python('secret')",
    "SELECT * FROM merge('sluice', '.*')",
    "SELECT aiGenerate('collection', 'text')",
    "CREATE TABLE f (a UInt64) ENGINE = File(CSV, '{0}')",
    "CREATE TABLE f (a UInt64) ENGINE = URL('http://127.0.0.1:9/', 'CSV')",
    "CREATE TABLE f (a UInt64) ENGINE = Executable('x', 'CSV')",
    "CREATE TABLE f (a UInt64) ENGINE = EmbeddedRocksDB(0, '{0}.rocks') PRIMARY KEY a",
    "CREATE TABLE f AS file('{0}')",
    "CREATE TABLE f (a String DEFAULT file('{0}')) ENGINE = MergeTree ORDER BY a",
    "CREATE TABLE f (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = 'local', path = '{0}.d/')",
    "ALTER TABLE other ADD COLUMN b String DEFAULT file('{0}')",
    "CREATE DATABASE f ENGINE = Filesystem('{0}')",
    "CREATE DATABASE f ENGINE = SQLite('{0}')",
    "CREATE DICTIONARY f (a UInt64) PRIMARY KEY a SOURCE(FILE(path '{0}' format 'CSV')) LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE FUNCTION f AS x -> file(x)",
    "CREATE NAMED COLLECTION f AS a = 1",
    "CREATE USER f",
    "GRANT READ ON FILE TO seal",
    "ATTACH TABLE f FROM '{0}' (a UInt64) ENGINE = MergeTree ORDER BY a",
    "BACKUP TABLE other TO File('{0}.backup')",
    "RESTORE TABLE other FROM File('{0}')",
    "SET ROLE sluice, incoming",
    "SET ROLE ALL PARALLEL WITH SELECT 1",
    "EXECUTE AS default SELECT 1",
    "KILL QUERY WHERE 1",
    "SYSTEM STOP MERGES",
)


@pytest.mark.parametrize("account", NAMES)
@pytest.mark.parametrize("sql", OUTWARD)
def test_no_account_reaches_the_machine_or_beyond(site: Site, account: str, sql: str) -> None:
    code, answer = site.ask(account, sql.replace("{0}", str(site.secret)))
    assert code, answer
    assert "4242" not in answer
    assert [path.name for path in site.secret.parent.glob("secret*")] == ["secret.csv"]
    assert site.ask(OPERATOR, "SELECT count() FROM other") == ("", "0\n")


@pytest.mark.parametrize("account", NAMES)
def test_a_name_that_comes_as_a_value_is_looked_at_too(site: Site, account: str) -> None:
    sql = "SELECT count() FROM {name:Identifier}"
    assert site.ask(account, sql, param_name="records")[0] == ""
    for name in ("system.processes", f"default.{site.secret}", str(site.secret)):
        code, answer = site.ask(account, sql, param_name=name)
        assert code or account == OPERATOR, answer
        assert "4242" not in answer


@pytest.mark.parametrize("account", [SEAL, VIEW, AUDIT])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM system.processes",
        "SELECT * FROM `system`.`server_settings`",
        "SELECT * FROM information_schema.tables",
        "SELECT 1 WHERE 'a' IN system.users",
        "SHOW PROCESSLIST",
    ],
)
def test_system_tables_are_closed_but_those_that_clients_ask(site: Site, account: str, sql: str) -> None:
    assert site.ask(account, sql)[0] == "497"
    assert site.ask(account, "SELECT count() FROM processes", database="system")[0]
    assert site.ask(account, "SELECT count() > 0 FROM system.tables") == ("", "1\n")


@pytest.mark.parametrize("account", [VIEW, AUDIT])
def test_who_only_reads_does_so_within_bounds(site: Site, account: str) -> None:
    assert site.ask(account, "SELECT getSetting('readonly')") == ("", "1\n")
    _, most = site.ask(account, "SELECT getSetting('max_execution_time')", max_execution_time="100000")
    bounds = next(known.bounds for known in ACCOUNTS if known.name == account)
    assert most == f"{bounds['max_execution_time'].most}\n"
    assert site.ask(account, "SELECT 1", max_memory_usage="0")[0] == "164"
    assert site.ask(account, "SELECT 1 SETTINGS max_memory_usage = 0")[0] == "164"
    assert site.ask(account, "SELECT 1", format_template_resultset=str(site.secret))[0] == "164"


def test_the_accounts_agree_with_the_table(site: Site) -> None:
    operator = site.client(OPERATOR)
    assert grants.check(operator, "sluice") == []
    missing = grants.check(operator, "elsewhere")
    assert any(line.startswith("account view: missing SELECT ON `elsewhere`.`records`") for line in missing)
    assert any(line.startswith("account view: not in the table SELECT ON `sluice`.`records`") for line in missing)


def test_seal_with_a_wrong_password_says_so_and_ends(site: Site, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("guess")
    create_log_keys(tmp_path / "log-key.json", "sluice")
    settings = {
        "SLUICE_CLICKHOUSE__URL": site.store.url,
        "SLUICE_CLICKHOUSE__USER": SEAL,
        "SLUICE_CLICKHOUSE__PASSWORD_FILE": str(tmp_path / "wrong"),
        "SLUICE_KEYS__HOME": str(tmp_path),
    }
    done = subprocess.run(
        module_command("pipeline", "run", "seal"),
        env={**os.environ, **module_environment(), **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=STUCK_S,
        check=False,
    )
    assert (done.returncode, "refuses user 'seal'" in done.stderr) == (2, True), done.stderr
    assert "guess" not in done.stderr


def test_an_account_of_another_password_is_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="refuses user 'view'"):
        site.client(VIEW, (site.accounts.folder / AUDIT).read_text())
