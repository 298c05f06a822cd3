"""One batch's rows for one table, and the two statements that put them into ClickHouse exactly once.

The insert leaves out what is there already; the question afterwards reads back how many rows of the batch the table
holds, and the sum of their bodies' CRC-32. See `clickhouse` for why both.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clickhouse.native import native_block, plain_type
from pipeline.errors import Fatal
from pipeline.tables import Table

# The times let the server skip all parts that do not reach into the batch: parts carry the least and greatest `time`.
_IN_SCOPE = (
    "`origin` = {{origin{0}:String}} AND `batch` = {{batch{0}:UInt64}} "
    "AND `time` BETWEEN fromUnixTimestamp64Milli({{low{0}:Int64}}) AND fromUnixTimestamp64Milli({{high{0}:Int64}})"
)


@dataclass(frozen=True, slots=True)
class InsertBlock:
    """All rows of one origin and batch; ``content`` in Native format, the scope's times in Unix ms."""

    table: Table
    kinds: Sequence[str]
    content: bytes
    rows: int
    checksum: int
    origin: str
    batch: int
    low: int
    high: int

    def scope(self, place: int) -> dict[str, Any]:
        """The parameters of ``_IN_SCOPE`` for the block at ``place`` of a statement."""
        return {f"{name}{place}": getattr(self, name) for name in ("origin", "batch", "low", "high")}


def block_of(table: Table, types: Mapping[str, str], columns: Sequence[Sequence[Any]]) -> InsertBlock:
    """One sequence per column of ``table.columns``. Raises Fatal where a value does not fit, or the batches differ."""
    by_name = dict(zip(table.columns, columns, strict=True))
    one = {}
    for name in ("origin", "batch"):
        values = set(by_name[name])
        if len(values) != 1:
            raise Fatal(f"table {table.name}: expected rows of one {name}, got {len(values)} different ones")
        one[name] = values.pop()
    kinds = [types[name] for name in table.columns]
    content = native_block(table.columns, kinds, columns)
    bodies = by_name["body"]
    checksum = sum(zlib.crc32(body if isinstance(body, bytes) else body.encode()) for body in bodies)
    times = by_name["time"]
    return InsertBlock(
        table, kinds, content, len(bodies), checksum, one["origin"], one["batch"], min(times), max(times)
    )


def insert_missing(block: InsertBlock) -> str:
    """The insert of those rows that the table lacks; parameters are ``scope(0)``, the block follows as data."""
    table = block.table
    names = ", ".join(f"`{name}`" for name in table.columns)
    shape = ", ".join(f"`{name}` {plain_type(kind)}" for name, kind in zip(table.columns, block.kinds, strict=True))
    shape = shape.replace("\\", "\\\\").replace("'", "\\'")
    last = table.key[-1]
    there = f"SELECT `{last}` FROM `{table.name}` WHERE {_IN_SCOPE.format(0)}"  # noqa: S608 - names from tables.py
    return (
        f"INSERT INTO `{table.name}` ({names}) SELECT {names} FROM input('{shape}') "  # noqa: S608
        f"WHERE `{last}` NOT IN ({there}) FORMAT Native"
    )


def count_stored(blocks: Sequence[InsertBlock]) -> str:
    """Give the statement that reads place, rows and checksum of every block back from the disk's pages, in order."""
    parts = (
        f"SELECT {place} AS place, count(), sum(CRC32(body)) FROM `{block.table.name}` "  # noqa: S608 - from tables.py
        f"WHERE {_IN_SCOPE.format(place)}"
        for place, block in enumerate(blocks)
    )
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY place"  # noqa: S608
