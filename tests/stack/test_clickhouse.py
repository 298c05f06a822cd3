"""The ClickHouse adapter on the embedded store: schema, exactly-once inserts, errors by fault."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline import wiring
from pipeline.clickhouse import outcomes
from pipeline.clickhouse.native import declared, migrations
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.config import Settings
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.errors import ConfigError, Fatal, Retryable
from pipeline.events.codec import encode
from pipeline.events.records import Outcome
from pipeline.keys.files import create_log_keys
from pipeline.tables import MANIFESTS, RECORDS, SCHEMA_VERSION, TABLES

PASSWORD = "correct horse"
DAY = 86_400_000
NOON = 1_789_992_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    supervisor = Supervisor()
    home = tmp_path_factory.mktemp("store")
    store = EmbeddedStore(StoreSettings(home, free_port(), PASSWORD), supervisor)
    store.start()
    yield store
    supervisor.stop_all()


@pytest.fixture
def clickhouse(store: EmbeddedStore, request: pytest.FixtureRequest) -> Iterator[ClickHouseStore]:
    """A migrated database of the test's own."""
    found = client(store, f"db_{abs(hash(request.node.nodeid))}")
    found.apply_migrations()
    yield found
    found.close()


def client(store: EmbeddedStore, database: str = "sluice", password: str = PASSWORD) -> ClickHouseStore:
    found = ClickHouseStore(ClickHouseEndpoint(store.url, "sluice", password, database))
    found.connect(20)
    return found


def batch(index: int = 0, rows: int = 100, origin: str = "g/decisions/0", step_ms: int = 1) -> list[list[Any]]:
    """Columns of RECORDS."""
    leaves = range(index * rows, (index + 1) * rows)
    by_name: dict[str, list[Any]] = {
        "origin": [origin] * rows,
        "batch": [index] * rows,
        "time": [NOON + leaf * step_ms for leaf in leaves],
        "kind": ["decision"] * rows,
        "tenant": [f"t{leaf % 7}" for leaf in leaves],
        "rules": [("pi.override", "pi.leak")[: leaf % 3] for leaf in leaves],
        "body": [b"{\x00;\n'%d" % leaf + os.urandom(40) for leaf in leaves],
    }
    others: dict[str, list[Any]] = {"UInt8": [3] * rows, "LowCardinality(String)": ["é"] * rows, "String": ["é"] * rows}
    types = declared()["records"]
    return [by_name.get(name) or others.get(types[name]) or list(leaves) for name in RECORDS.columns]


def held(found: ClickHouseStore) -> tuple[Any, ...]:
    return found.query("SELECT count(), uniqExact(origin, leaf) FROM records")[0]


def test_migrations_and_tables_agree() -> None:
    assert [number for number, _ in migrations()] == list(range(1, SCHEMA_VERSION + 1))
    for table in TABLES:
        assert set(declared()[table.name]) == set(table.columns)
        assert {"origin", "batch", "time", "body"} <= set(table.columns)
        assert set(table.key) <= set(table.columns)


def test_migrations_apply_once(store: EmbeddedStore) -> None:
    found = client(store, "fresh")
    assert found.check_tables() == ["database fresh is missing; run `sluice tables apply`"]
    assert found.schema_version() == 0
    assert found.apply_migrations() == SCHEMA_VERSION
    assert found.apply_migrations() == 0
    assert (found.schema_version(), found.check_tables()) == (SCHEMA_VERSION, [])


def test_outcomes_come_back_page_by_page(clickhouse: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "_PAGE", 7)
    for origin in ("g/decisions/0", "g/decisions/1"):
        columns = batch(rows=20, origin=origin)
        names = RECORDS.columns
        columns[names.index("kind")] = ["outcome", "decision"] * 10
        bodies = [
            encode(Outcome(f"{origin}-{leaf}", NOON + leaf, "finished", "o", "t", "p", 1, fingerprints=b"12345678"))
            for leaf in range(20)
        ]
        columns[names.index("body")] = [b"no record", *bodies[1:]]
        clickhouse.insert_batch([(RECORDS, columns)], origin)
    found = [(o.request, o.fingerprints) for o in outcomes.sealed_outcomes(clickhouse, NOON + 4)]
    assert found == [
        (f"{origin}-{leaf}", b"12345678") for origin in ("g/decisions/0", "g/decisions/1") for leaf in range(4, 20, 2)
    ]
    assert len(list(outcomes.sealed_outcomes(clickhouse, 0))) == 18


def test_a_newer_store_is_refused(clickhouse: ClickHouseStore) -> None:
    clickhouse._command(f"INSERT INTO schema_version SELECT {SCHEMA_VERSION + 1}, now64(3)")
    with pytest.raises(ConfigError, match=f"schema version {SCHEMA_VERSION + 1}, this program knows {SCHEMA_VERSION}"):
        clickhouse.apply_migrations()
    assert "run the newer program" in clickhouse.check_tables()[0]


@pytest.mark.parametrize(("changed", "says"), [(1, "run the newer program"), (-1, "run `sluice tables apply`")])
def test_the_sealer_refuses_a_store_of_another_schema(
    clickhouse: ClickHouseStore, store: EmbeddedStore, tmp_path: Path, changed: int, says: str
) -> None:
    clickhouse._command("TRUNCATE TABLE schema_version")
    clickhouse._command(f"INSERT INTO schema_version SELECT {SCHEMA_VERSION + changed}, now64(3)")
    create_log_keys(tmp_path / "log-key.json", "test")
    place = {"url": store.url, "password": PASSWORD, "database": clickhouse._database}
    settings = Settings.model_validate({"clickhouse": place, "keys": {"home": tmp_path}})
    with pytest.raises(ConfigError, match=says):
        asyncio.run(wiring.seal(settings, asyncio.Event()))


def test_a_changed_schema_is_named(clickhouse: ClickHouseStore) -> None:
    clickhouse._command("DROP TABLE manifests")
    clickhouse._command("ALTER TABLE records DROP COLUMN reason")
    clickhouse._command("ALTER TABLE records MODIFY COLUMN severity UInt16")
    assert sorted(clickhouse.check_tables()) == [
        "table manifests is missing",
        "table records: column reason (LowCardinality(String)) is missing",
        "table records: column severity is UInt16, expected UInt8",
    ]


def test_rows_come_back_as_they_went_in(clickhouse: ClickHouseStore) -> None:
    columns = batch()
    assert clickhouse.insert_batch([(RECORDS, columns)], "t") is True
    names = ", ".join("toUnixTimestamp64Milli(time)" if n == "time" else f"`{n}`" for n in RECORDS.columns)
    # Bodies are no text; the client gives them back as such only where they happen to be UTF-8.
    names = names.replace("`body`", "hex(body)")
    got = clickhouse.query(f"SELECT {names} FROM records ORDER BY leaf")
    sent = [list(column) for column in columns]
    sent[-1] = [body.hex().upper() for body in sent[-1]]
    sent[RECORDS.columns.index("rules")] = [list(rules) for rules in sent[RECORDS.columns.index("rules")]]
    assert [list(column) for column in zip(*got, strict=True)] == sent


def test_manifests_go_in_by_row(clickhouse: ClickHouseStore) -> None:
    row = ("g/decisions/0", 4, "decisions", 0, 5, 9, 5, 0, 9, "ab" * 32, NOON, b"{}")
    assert clickhouse.insert(MANIFESTS, [row], "t") is True
    assert clickhouse.insert(MANIFESTS, [row], "t") is False
    assert clickhouse.query("SELECT batch, rows, root FROM manifests") == [(4, 5, "ab" * 32)]
    assert clickhouse.insert(MANIFESTS, [], "u") is False


def test_a_batch_counts_once(clickhouse: ClickHouseStore) -> None:
    columns = batch()
    assert clickhouse.insert_batch([(RECORDS, columns)], "t") is True
    assert clickhouse.insert_batch([(RECORDS, columns)], "t") is False
    assert held(clickhouse) == (100, 100)


def test_a_batch_counts_once_beyond_the_deduplication_window(clickhouse: ClickHouseStore) -> None:
    clickhouse._command("ALTER TABLE records MODIFY SETTING non_replicated_deduplication_window = 2")
    batches = [batch(index) for index in range(6)]
    for index, columns in enumerate(batches):
        clickhouse.insert_batch([(RECORDS, columns)], f"t{index}")
    assert clickhouse.insert_batch([(RECORDS, batches[0])], "t0") is False
    assert held(clickhouse) == (600, 600)


def test_one_batch_from_many_writers_at_once_counts_once(clickhouse: ClickHouseStore) -> None:
    columns = batch(rows=2000)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: clickhouse.insert_batch([(RECORDS, columns)], "t"), range(12)))
    assert held(clickhouse) == (2000, 2000)


def test_a_batch_over_two_months_that_was_cut_off_is_completed(clickhouse: ClickHouseStore) -> None:
    columns = batch(rows=60, step_ms=DAY)
    part = [column[:20] for column in columns]
    clickhouse.insert_batch([(RECORDS, part)], "t")
    assert clickhouse.insert_batch([(RECORDS, columns)], "t") is True
    assert held(clickhouse) == (60, 60)


def test_equal_leaves_of_another_origin_are_other_rows(clickhouse: ClickHouseStore) -> None:
    clickhouse.insert_batch([(RECORDS, batch())], "a")
    clickhouse.insert_batch([(RECORDS, batch(origin="g/decisions/1"))], "b")
    assert held(clickhouse) == (200, 200)


def test_rows_that_differ_from_the_batch_are_told(clickhouse: ClickHouseStore) -> None:
    columns = batch()
    clickhouse.insert_batch([(RECORDS, columns)], "t")
    with pytest.raises(Fatal, match="holds 99 rows of g/decisions/0 batch 0, expected 50"):
        clickhouse.insert_batch([(RECORDS, [column[::2] for column in columns])], "u")
    with pytest.raises(Fatal, match="holds other bodies"):
        clickhouse.insert_batch([(RECORDS, batch())], "u")


def test_a_value_that_does_not_fit_names_its_column_and_not_itself(clickhouse: ClickHouseStore) -> None:
    columns = batch()
    columns[RECORDS.columns.index("severity")] = [300] * 100
    with pytest.raises(Fatal, match="column severity: a value does not fit UInt8") as caught:
        clickhouse.insert_batch([(RECORDS, columns)], "t")
    assert "300" not in str(caught.value)
    columns = batch()
    columns[RECORDS.columns.index("batch")] = [0, 1] * 50
    with pytest.raises(Fatal, match="rows of one batch, got 2"):
        clickhouse.insert_batch([(RECORDS, columns)], "t")
    assert held(clickhouse) == (0, 0)


def test_acknowledged_batches_survive_a_kill_and_stay_single(tmp_path: Path) -> None:
    supervisor = Supervisor()
    store = EmbeddedStore(StoreSettings(tmp_path, free_port(), PASSWORD), supervisor)
    try:
        store.start()
        found = client(store)
        found.apply_migrations()
        batches = [batch(index) for index in range(3)]
        for index, columns in enumerate(batches):
            found.insert_batch([(RECORDS, columns)], f"t{index}")
        store.kill()
        with pytest.raises(Retryable, match="gave no answer"):
            found.query("SELECT 1")
        store.start()
        for index, columns in enumerate(batches):
            assert found.insert_batch([(RECORDS, columns)], f"t{index}") is False
        assert held(found) == (300, 300)
    finally:
        supervisor.stop_all()


def test_a_part_that_was_cut_short_is_never_acknowledged(tmp_path: Path) -> None:
    supervisor = Supervisor()
    store = EmbeddedStore(StoreSettings(tmp_path, free_port(), PASSWORD), supervisor)
    try:
        store.start()
        found = client(store)
        found.apply_migrations()
        columns = batch(rows=2000)
        columns[-1] = [os.urandom(1000) for _ in range(2000)]
        resource.prlimit(store.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        with pytest.raises((Fatal, Retryable)):
            found.insert_batch([(RECORDS, columns)], "t")
    finally:
        supervisor.stop_all()


def test_bad_sql_says_why(clickhouse: ClickHouseStore) -> None:
    with pytest.raises(Fatal, match=r"UNKNOWN_IDENTIFIER.*nope"):
        clickhouse.query("SELECT nope FROM records")
    with pytest.raises(Fatal, match="refuses a statement") as caught:
        clickhouse.query("SELECT toUInt8({text:String})", {"text": "a secret prompt"})
    assert "secret" not in str(caught.value)


def test_a_wrong_password_is_the_operators_fault(store: EmbeddedStore) -> None:
    with pytest.raises(ConfigError, match="refuses user 'sluice'") as caught:
        client(store, password="wrong-one")
    assert "wrong-one" not in str(caught.value)


def test_a_silent_server_is_named_with_what_was_tried() -> None:
    port = free_port()
    with pytest.raises(Retryable, match=rf"127\.0\.0\.1:{port} did not answer in 0 s \(last: .*refused"):
        ClickHouseStore(ClickHouseEndpoint(f"http://127.0.0.1:{port}", "sluice", PASSWORD)).connect(0)


def test_a_url_without_a_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clickhouse\.url"):
        ClickHouseStore(ClickHouseEndpoint("localhost:8123", "sluice", PASSWORD)).connect(0)
