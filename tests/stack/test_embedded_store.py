"""The embedded ClickHouse store, for real: unmodified clients, refusals, crashes."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import lz4.frame
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.store_server import BODY_LIMIT
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.errors import ConfigError
from tests.patience import STUCK_S
from tests.stack.embedded_store_site import PASSWORD, ROWS, TABLE, client, count, insert, port_of, settings, table


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    supervisor = Supervisor()
    store = EmbeddedStore(settings(tmp_path_factory.mktemp("store")), supervisor)
    store.start()
    yield store
    supervisor.stop_all()


def request(
    store: EmbeddedStore, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    login = {"Authorization": "Basic " + b64encode(f"sluice:{PASSWORD}".encode()).decode()}
    call = urllib.request.Request(store.url + path, body, login if headers is None else headers)
    try:
        with urllib.request.urlopen(call, timeout=STUCK_S) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def ask(store: EmbeddedStore, sql: str, body: bytes | None = None, **parameters: str) -> tuple[int, bytes]:
    status, _, answer = request(store, "/?" + urllib.parse.urlencode({"query": sql, **parameters}), body)
    return status, answer


def test_rows_come_back_as_they_went_in(store: EmbeddedStore) -> None:
    found = table(store, "round_trip")
    insert(found, "round_trip", "t")
    got = found.query("SELECT * FROM round_trip ORDER BY a", tz_mode="aware").result_rows
    assert [list(row) for row in got] == ROWS


@pytest.mark.parametrize("packed", [False, "lz4", "gzip"])
def test_packed_bodies_are_understood(store: EmbeddedStore, packed: bool | str) -> None:
    found = client(store, compress=packed)
    name = f"packed_{packed}".lower()
    found.command(f"CREATE TABLE {name} {TABLE}")
    insert(found, name, "t")
    assert count(found, name) == len(ROWS)


def test_an_answer_without_rows_still_names_its_columns(store: EmbeddedStore) -> None:
    found = table(store, "empty")
    assert found.query("SELECT a, body AS text FROM empty WHERE a = {a:UInt64}", {"a": 1}).column_names == ("a", "text")


def test_bound_values_are_values(store: EmbeddedStore) -> None:
    hostile = "a'b\\n\t\n\\' OR 1=1 -- é {x:String}"
    found = client(store)
    got = found.query("SELECT {text:String}, {list:Array(String)}", {"text": hostile, "list": [hostile, "'"]})
    assert got.result_rows == [(hostile, [hostile, "'"])]
    long = hostile * 2000
    assert found.query("SELECT {text:String}", {"text": long}).result_rows == [(long,)]


def test_the_asyncio_client_works(store: EmbeddedStore) -> None:
    async def run() -> int:
        found = await clickhouse_connect.get_async_client(
            host="127.0.0.1", port=port_of(store), username="sluice", password=PASSWORD
        )
        await found.command(f"CREATE TABLE by_asyncio {TABLE}")
        await found.insert("by_asyncio", [[1, ""], [2, "b"]], column_names=["a", "body"])
        rows = (await found.query("SELECT sum(a) FROM by_asyncio")).result_rows
        await found.close()
        return int(rows[0][0])

    assert asyncio.run(run()) == 3


def test_a_token_counts_once_and_stays_with_its_request(store: EmbeddedStore) -> None:
    found = table(store, "tokens")
    insert(found, "tokens", "same")
    insert(found, "tokens", "same")
    assert count(found, "tokens") == len(ROWS)
    found.insert("tokens", [[7, "other rows, no token"]], column_names=["a", "body"])
    assert count(found, "tokens") == len(ROWS) + 1


def test_rows_of_input_are_filtered_by_the_statement(store: EmbeddedStore) -> None:
    found = table(store, "filtered")
    sql = "INSERT INTO filtered (a) SELECT n FROM input('n UInt64') WHERE n NOT IN (SELECT a FROM filtered)"
    for _ in range(2):
        found.command(sql + " FORMAT JSONEachRow", data=b'{"n":1}\n{"n":2}')
    assert found.query("SELECT a FROM filtered ORDER BY a").result_rows == [(1,), (2,)]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT nope", "UNKNOWN_IDENTIFIER"),
        ("SELEC 1", "SYNTAX_ERROR"),
        ("SELECT * FROM not_there", "UNKNOWN_TABLE"),
        ("SELECT 1; SELECT 2", "SYNTAX_ERROR"),
        ("SELECT 1; nonsense (", "SYNTAX_ERROR"),
        ("CREATE TABLE twice (a UInt8) ENGINE = Memory; DROP TABLE twice", "SYNTAX_ERROR"),
    ],
)
def test_bad_statements_are_told_why(store: EmbeddedStore, sql: str, says: str) -> None:
    with pytest.raises(DatabaseError, match=says) as caught:
        client(store).command(sql)
    assert caught.value.code


def test_plain_http_gives_text_formats(store: EmbeddedStore) -> None:
    assert ask(store, "SELECT 1, 'a'") == (200, b"1\ta\n")
    status, headers, body = request(store, "/?query=SELECT+1+AS+n&default_format=JSONEachRow")
    assert (status, headers["Content-Type"], body) == (200, "application/json", b'{"n":1}\n')
    assert request(store, "/ping", headers={})[::2] == (200, b"Ok.\n")
    keys = {"X-ClickHouse-User": "sluice", "X-ClickHouse-Key": PASSWORD}
    assert request(store, "/", b"SELECT 5 FORMAT CSV", keys)[::2] == (200, b"5\n")


def test_get_requests_change_nothing(store: EmbeddedStore) -> None:
    found = table(store, "kept")
    status, answer = ask(store, "DROP TABLE kept")
    assert (status, b"READONLY" in answer) == (403, True)
    assert count(found, "kept") == 0


def test_unknown_settings_are_refused(store: EmbeddedStore) -> None:
    status, answer = ask(store, "SELECT 1", max_threadz="2")
    assert (status, b"UNKNOWN_SETTING" in answer) == (400, True)
    status, answer = ask(store, "SELECT 1", None, **{"a = 1, readonly": "2"})
    assert (status, b"UNKNOWN_SETTING" in answer) == (400, True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Basic " + b64encode(b"sluice:wrong").decode()},
        {"Authorization": "Basic " + b64encode(f"root:{PASSWORD}".encode()).decode()},
        {"Authorization": "Basic ***"},
        {"X-ClickHouse-User": "sluice", "X-ClickHouse-Key": ""},
    ],
)
def test_strangers_are_refused(store: EmbeddedStore, headers: dict[str, str]) -> None:
    status, answer_headers, body = request(store, "/?query=SELECT+4242", headers=headers)
    assert (status, answer_headers["X-ClickHouse-Exception-Code"]) == (401, "516")
    assert b"4242" not in body
    assert PASSWORD.encode() not in body


def test_oversize_bodies_are_refused(store: EmbeddedStore) -> None:
    status, _, _ = request(store, "/", b" " * (BODY_LIMIT + 1))
    assert status == 413
    assert ask(store, "SELECT 1") == (200, b"1\n")


def test_packed_bodies_that_unpack_too_large_are_refused(store: EmbeddedStore) -> None:
    bomb = lz4.frame.compress(b" " * (BODY_LIMIT + 1))
    login = b64encode(f"sluice:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Encoding": "lz4"}
    assert request(store, "/", bomb, headers)[0] == 413


def test_reads_go_on_beside_a_slow_insert(store: EmbeddedStore) -> None:
    found = table(store, "slow")
    slow = threading.Thread(
        target=found.command, args=("INSERT INTO slow (a) SELECT sleepEachRow(0.5) FROM numbers(4)",)
    )
    slow.start()
    assert ask(store, "SELECT 1") == (200, b"1\n")
    assert slow.is_alive()
    slow.join()
    assert count(found, "slow") == 4


def test_the_go_driver_is_greeted_with_revision_zero(store: EmbeddedStore) -> None:
    hello = b"SELECT displayName(), version(), revision(), timezone()"
    login = {"Authorization": "Basic " + b64encode(f"sluice:{PASSWORD}".encode()).decode()}
    status, _, body = request(store, "/?client_protocol_version=54460&default_format=Native", hello, login)
    assert status == 200
    assert body.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\x0ddisplayName()\x06String\x00\x0csluice-store")
    assert b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x00" in body


def test_a_full_disk_is_told_and_nothing_of_the_insert_stays(store: EmbeddedStore) -> None:
    found = client(store)
    # A table that wants a pebibyte to stay free makes every disk a full one.
    found.command(f"CREATE TABLE full {TABLE}, min_free_disk_bytes_to_perform_insert = {1 << 50}")
    with pytest.raises(DatabaseError, match="NOT_ENOUGH_SPACE"):
        insert(found, "full", "same")
    assert count(found, "full") == 0
    found.command("ALTER TABLE full MODIFY SETTING min_free_disk_bytes_to_perform_insert = 0")
    insert(found, "full", "same")
    assert count(found, "full") == len(ROWS)


def test_a_second_server_on_the_same_folder_is_refused(store: EmbeddedStore) -> None:
    second = EmbeddedStore(StoreSettings(home_of(store), free_port(), PASSWORD), Supervisor())
    with pytest.raises(ConfigError, match="another store already runs on"):
        second.start()
    assert ask(store, "SELECT 1") == (200, b"1\n")


def home_of(store: EmbeddedStore) -> Path:
    return store._settings.home
