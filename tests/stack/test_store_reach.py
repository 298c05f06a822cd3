"""No account of the embedded store reaches the machine that it runs on, or another: every door that was found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.clickhouse.accounts import AUDIT, NAMES, OPERATOR, SEAL, VIEW
from pipeline.embedded.supervisor import Supervisor
from tests.stack.store_site import StoreSite

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
    "ALTER TABLE other DELETE WHERE 1 INTO OUTFILE '{0}.out'",
    "ALTER TABLE other UPDATE a = 1 WHERE file('{0}') = '' SETTINGS mutations_sync = 2",
    "ALTER TABLE other FREEZE",
    "ALTER TABLE other MOVE PARTITION tuple() TO DISK 'x'",
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSite]:
    supervisor = Supervisor()
    try:
        yield StoreSite(tmp_path_factory.mktemp("accounts"), supervisor)
    finally:
        supervisor.stop_all()


@pytest.mark.parametrize("account", NAMES)
@pytest.mark.parametrize("sql", OUTWARD)
def test_no_account_reaches_the_machine_or_beyond(site: StoreSite, account: str, sql: str) -> None:
    code, answer = site.ask(account, sql.replace("{0}", str(site.secret)))
    assert code, answer
    assert "4242" not in answer
    assert [path.name for path in site.secret.parent.glob("secret*")] == ["secret.csv"]
    assert site.ask(OPERATOR, "SELECT count() FROM other") == ("", "0\n")


@pytest.mark.parametrize("account", NAMES)
def test_a_name_that_comes_as_a_value_is_looked_at_too(site: StoreSite, account: str) -> None:
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
def test_system_tables_are_closed_but_those_that_clients_ask(site: StoreSite, account: str, sql: str) -> None:
    assert site.ask(account, sql)[0] == "497"
    assert site.ask(account, "SELECT count() FROM processes", database="system")[0]
    assert site.ask(account, "SELECT count() > 0 FROM system.tables") == ("", "1\n")
