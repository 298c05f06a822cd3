"""Every ClickHouse table and the row of each sealed record. Checked against the migrations and the live store."""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = 2


class Table(NamedTuple):
    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    """Columns that name one row; a second row with the same key is a fault."""


RECORDS = Table(
    "records",
    (
        "origin",
        "batch",
        "leaf",
        "offset",
        "time",
        "kind",
        "request",
        "organisation",
        "tenant",
        "principal",
        "sequence",
        "verdict",
        "reason",
        "limit_id",
        "result",
        "model",
        "finish",
        "reserved_tokens",
        "input_tokens",
        "output_tokens",
        "latency_ms",
        "first_token_ms",
        "rules",
        "severity",
        "risk",
        "body",
    ),
    ("origin", "leaf"),
)
MANIFESTS = Table(
    "manifests",
    (
        "origin",
        "batch",
        "topic",
        "partition",
        "first",
        "last",
        "rows",
        "skipped",
        "size",
        "root",
        "time",
        "body",
    ),
    ("origin", "batch"),
)
TABLES = (RECORDS, MANIFESTS)
