"""The embedded store's accounts, walked: each may do to a table what the table of accounts says, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pipeline.clickhouse import grants
from pipeline.clickhouse.accounts import ACCOUNTS, AUDIT, NAMES, OPERATOR, SEAL, VIEW, StoreAccount
from pipeline.clickhouse.native import declared
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.local_accounts import LocalAccounts
from pipeline.embedded.supervisor import Supervisor
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.interpreter import module_command, module_environment
from pipeline.keys.files import create_log_keys
from pipeline.tables import RECORDS
from tests.certificates import write_pair
from tests.patience import STUCK_S
from tests.stack.store_site import StoreSite

TABLES = tuple(declared())
REFUSED = {"497", "164", "452"}
"""ClickHouse's codes for a right that is missing, a session that only reads, and a setting that is fixed."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSite]:
    supervisor = Supervisor()
    try:
        yield StoreSite(tmp_path_factory.mktemp("accounts"), supervisor)
    finally:
        supervisor.stop_all()


def granted(account: StoreAccount, operation: str, table: str, column: str) -> bool:
    return any(
        right.operation == operation and right.table == table and (not right.columns or column in right.columns)
        for right in account.rights
    )


@pytest.mark.parametrize("table", [*TABLES, "other"])
@pytest.mark.parametrize("account", ACCOUNTS, ids=lambda account: account.name)
def test_each_account_reads_and_writes_what_the_table_says(site: StoreSite, account: StoreAccount, table: str) -> None:
    for column in declared().get(table, {"a": ""}):
        code, answer = site.ask(account.name, f"SELECT `{column}` FROM `{table}` LIMIT 0")
        assert (code == "") == granted(account, "SELECT", table, column), (column, answer)
    names = ", ".join(f"`{name}`" for name in declared().get(table, {"a": ""}))
    code, answer = site.ask(account.name, f"INSERT INTO `{table}` ({names}) SELECT {names} FROM `{table}` WHERE 0")
    reads_all = all(granted(account, "SELECT", table, column) for column in declared().get(table, {"a": ""}))
    assert (code == "") == (granted(account, "INSERT", table, "") and reads_all), answer
    code, answer = site.ask(account.name, f"INSERT INTO `{table}` ({names}) FORMAT Null\n")
    assert (code not in REFUSED) == granted(account, "INSERT", table, ""), answer


def test_seal_inserts_a_batch_once_and_the_others_read_it(site: StoreSite) -> None:
    seal = site.client(SEAL)
    assert seal.check_tables() == []
    columns: dict[str, list[object]] = {"origin": ["g/decisions/0"], "time": [1_789_992_000_000], "body": [b"{}"]}
    kinds = declared()["records"]
    row = [columns.get(name) or ([""] if "String" in kinds[name] else [0]) for name in RECORDS.columns]
    row[RECORDS.columns.index("rules")] = [[]]
    assert seal.insert_batch([(RECORDS, row)], "token")
    assert not seal.insert_batch([(RECORDS, row)], "token")
    assert seal.count_batch("g/decisions/0", 0) == 1
    for account in (VIEW, AUDIT):
        reader = site.client(account)
        assert reader.query("SELECT count(), any(body) FROM records") == [(1, "{}")]
        with pytest.raises(ConfigError, match=f"lets user '{account}' do less"):
            reader.command("INSERT INTO records (body) SELECT 'forged'")


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
def test_none_but_the_operator_changes_a_table(site: StoreSite, account: str, table: str, sql: str) -> None:
    assert site.ask(account, sql.format(table))[0] in REFUSED


@pytest.mark.parametrize("account", [VIEW, AUDIT])
def test_who_only_reads_does_so_within_bounds(site: StoreSite, account: str) -> None:
    assert site.ask(account, "SELECT getSetting('readonly')") == ("", "1\n")
    _, most = site.ask(account, "SELECT getSetting('max_execution_time')", max_execution_time="100000")
    bounds = next(known.bounds for known in ACCOUNTS if known.name == account)
    assert most == f"{bounds['max_execution_time'].most}\n"
    assert site.ask(account, "SELECT 1", max_memory_usage="0")[0] == "164"
    assert site.ask(account, "SELECT 1 SETTINGS max_memory_usage = 0")[0] == "164"
    assert site.ask(account, "SELECT 1", format_template_resultset=str(site.secret))[0] == "164"


def test_the_accounts_agree_with_the_table(site: StoreSite) -> None:
    operator = site.client(OPERATOR)
    assert grants.check(operator, "sluice") == []
    missing = grants.check(operator, "elsewhere")
    assert any(line.startswith("account view: missing SELECT ON `elsewhere`.`records`") for line in missing)
    assert any(line.startswith("account view: not in the table SELECT ON `sluice`.`records`") for line in missing)


def test_seal_with_a_wrong_password_says_so_and_ends(site: StoreSite, tmp_path: Path) -> None:
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


def test_an_account_of_another_password_is_refused(site: StoreSite) -> None:
    with pytest.raises(ConfigError, match="refuses user 'view'"):
        site.client(VIEW, (site.accounts.folder / AUDIT).read_text())


class Recorder:
    """A server that has no account yet, and keeps what it is told."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def query(self, sql: str, parameters: object = None) -> list[tuple[object, ...]]:
        return []

    def command(self, sql: str) -> None:
        self.statements.append(sql)


def test_what_a_server_is_told_is_clickhouses_own_language(site: StoreSite) -> None:
    server, operator = Recorder(), site.client(OPERATOR)
    passwords = {account.name: f"of {account.name}'s" for account in ACCOUNTS}
    changes = grants.apply(cast("ClickHouseStore", server), "sluice", passwords)
    assert len(changes) == len(server.statements) == len(ACCOUNTS) + sum(len(account.rights) for account in ACCOUNTS)
    for statement in server.statements:
        assert operator.query("SELECT formatQuery({sql:String})", {"sql": statement})
        assert not any(password in statement for password in passwords.values())
    assert any("`readonly` = 1" in text or "readonly = 1" in text for text in server.statements if "`view`" in text)


@pytest.fixture
def secured(site: StoreSite, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The store behind TLS, and the file of its authority."""
    authority, key = tmp_path / "store.pem", tmp_path / "store.key"
    write_pair(authority, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    port = int(site.store.url.rsplit(":", 1)[1])

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(passed_on, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", authority
    loop.call_soon_threadsafe(loop.stop)
    thread.join(STUCK_S)


def test_a_store_behind_tls_is_known_by_its_authority(site: StoreSite, secured: tuple[str, Path]) -> None:
    url, authority = secured
    password = (site.accounts.folder / VIEW).read_text()
    known = ClickHouseStore(ClickHouseEndpoint(url, VIEW, password, ca_file=str(authority)))
    known.connect(20)
    assert known.query("SELECT 1") == [(1,)]
    known.close()
    with pytest.raises(Retryable, match="CERTIFICATE_VERIFY_FAILED"):
        ClickHouseStore(ClickHouseEndpoint(url, VIEW, password)).try_connect()
    with pytest.raises(ConfigError, match=r"clickhouse\.ca_file: expected a PEM file"):
        ClickHouseStore(ClickHouseEndpoint(url, VIEW, password, ca_file="/absent")).try_connect()
    with pytest.raises(ConfigError, match="https://"):
        ClickHouseStore(ClickHouseEndpoint(site.store.url, VIEW, password, ca_file=str(authority))).try_connect()


def test_a_home_of_an_earlier_build_keeps_its_password_for_the_operator(tmp_path: Path) -> None:
    (tmp_path / "store-password").write_text("of before")
    accounts = LocalAccounts(tmp_path, authenticates=True)
    for _ in range(2):
        accounts.ensure_passwords()
        assert (accounts.folder / OPERATOR).read_text() == "of before"
    assert not (tmp_path / "store-password").exists()
    assert {path.name for path in accounts.folder.iterdir()} == set(NAMES)
    assert {path.stat().st_mode & 0o777 for path in accounts.folder.iterdir()} == {0o600}
    assert accounts.environment("gateway") == {"SLUICE_CLICKHOUSE__PASSWORD_FOLDER": ""}
