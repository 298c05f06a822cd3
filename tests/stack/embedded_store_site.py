"""An embedded store of a test's own, and a client of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import clickhouse_connect

from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import free_port

PASSWORD = "correct horse"
TABLE = (
    "(a UInt64, who LowCardinality(String), at DateTime64(3, 'UTC'), tags Array(LowCardinality(String)), body String) "
    "ENGINE = MergeTree ORDER BY a "
    "SETTINGS non_replicated_deduplication_window = 2, fsync_after_insert = 1, fsync_part_directory = 1"
)


def settings(home: Path) -> StoreSettings:
    return StoreSettings(home=home, port=free_port(), password=PASSWORD)


def port_of(store: EmbeddedStore) -> int:
    return int(store.url.rsplit(":", 1)[1])


def client(store: EmbeddedStore, password: str = PASSWORD, **options: Any) -> Any:
    options = {"username": "sluice", "password": password, "host": "127.0.0.1", "port": port_of(store), **options}
    return clickhouse_connect.get_client(**options)


def table(store: EmbeddedStore, name: str) -> Any:
    """A client on a fresh table."""
    found = client(store)
    found.command(f"CREATE TABLE {name} {TABLE}")
    return found


START = datetime(2026, 9, 21, 12, 0, 0, 123_000, UTC)
ROWS = [
    [n, f"w{n % 3}", START + timedelta(milliseconds=n), ["x", "y"][: n % 3], "line;\nSELECT 1;\n'\\\x00é" * 9]
    for n in range(3000)
]


def insert(found: Any, name: str, token: str, rows: list[list[Any]] = ROWS) -> None:
    found.insert(
        name,
        rows,
        column_names=["a", "who", "at", "tags", "body"],
        settings={"insert_deduplication_token": token},
    )


def count(found: Any, name: str) -> int:
    return int(found.command(f"SELECT count() FROM {name}"))
