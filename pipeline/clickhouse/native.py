"""Columns of Python values to one block of ClickHouse's Native format, and the column types of the migrations.

The block states plain types (``String`` where the table has ``LowCardinality(String)``); the server casts on insert.
Format: https://clickhouse.com/docs/interfaces/formats/Native, revision 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import Fatal

MIGRATIONS = Path(__file__).resolve().parent / "migrations"

_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\s*\(\n(.*?)\n\)\s*\nENGINE", re.DOTALL)
_COLUMN = re.compile(r"^    (?!INDEX |PROJECTION |CONSTRAINT )(\w+) (.+?)(?: CODEC\(.*)?(?: DEFAULT .*)?,?$")
_ADD = re.compile(
    r"ALTER TABLE (\w+) ADD COLUMN IF NOT EXISTS (\w+) ([^;]+?)(?: CODEC\([^;]*)?(?: AFTER \w+)?$", re.MULTILINE
)
_COMMENT = re.compile(r"^\s*--.*\n?", re.MULTILINE)


def migrations(folder: Path = MIGRATIONS) -> list[tuple[int, list[str]]]:
    """Version and statements of every migration, in order. A statement ends with a semicolon at the end of a line."""
    found = []
    for path in sorted(folder.glob("[0-9]*.sql")):
        text = _COMMENT.sub("", path.read_text("utf-8"))
        parts = (part.strip() for part in re.split(r";[ \t]*(?:\n|$)", text))
        found.append((int(path.name.split("_", 1)[0]), [part for part in parts if part]))
    return found


def declared(folder: Path = MIGRATIONS) -> dict[str, dict[str, str]]:
    """Column types by table and column, as the migrations leave them."""
    tables: dict[str, dict[str, str]] = {}
    for _, statements in migrations(folder):
        for statement in statements:
            for name, body in _CREATE.findall(statement + "\nENGINE" if "ENGINE" not in statement else statement):
                lines = (_COLUMN.match(line) for line in body.split("\n"))
                tables[name] = {line[1]: line[2] for line in lines if line}
            for table, column, kind in _ADD.findall(statement):
                tables.setdefault(table, {})[column] = kind.strip()
    return tables


def plain_type(kind: str) -> str:
    """The type under which a column is sent: ``LowCardinality`` is the table's affair."""
    return re.sub(r"LowCardinality\((\w+)\)", r"\1", kind)


def native_block(names: Sequence[str], kinds: Sequence[str], columns: Sequence[Sequence[Any]]) -> bytes:
    """One block; `kinds` are the table's types. Times are Unix ms, strings text or bytes.

    Raises Fatal naming the column where a value does not fit, or the columns differ in length.
    """
    rows = len(columns[0])
    parts = [varint(len(columns)), varint(rows)]
    for name, kind, column in zip(names, kinds, columns, strict=True):
        if len(column) != rows:
            raise Fatal(f"column {name}: expected {rows} values, got {len(column)}; the batch is not inserted")
        encode = _encoder(kind)
        try:
            body = encode(column)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise Fatal(f"column {name}: a value does not fit {kind} ({type(error).__name__})") from None
        parts += (native_string(name), native_string(plain_type(kind)), body)
    return b"".join(parts)


def varint(number: int) -> bytes:
    """ClickHouse's VarUInt (LEB128)."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_LENGTHS = [varint(length) for length in range(1 << 14)]


def native_string(value: str | bytes) -> bytes:
    """A length-prefixed string of the Native format."""
    raw = value if isinstance(value, bytes) else value.encode()
    size = len(raw)
    return (_LENGTHS[size] if size < 1 << 14 else varint(size)) + raw


def _strings(column: Sequence[str | bytes]) -> bytes:
    return b"".join([native_string(value) for value in column])


def _repeated(column: Sequence[str]) -> bytes:
    pieces = {value: native_string(value) for value in set(column)}
    return b"".join([pieces[value] for value in column])


def _lists(column: Sequence[Sequence[str]]) -> bytes:
    ends = np.fromiter(accumulate(map(len, column)), dtype="<u8", count=len(column))
    return ends.tobytes() + _repeated(list(chain.from_iterable(column)))


def _numbers(dtype: str) -> Callable[[Sequence[int]], bytes]:
    bounds = np.iinfo(dtype)

    def encode(column: Sequence[int]) -> bytes:
        if len(column) and not (min(column) >= bounds.min and max(column) <= bounds.max):
            raise OverflowError
        return np.array(column, dtype=dtype).tobytes()

    return encode


_ENCODERS: dict[str, Callable[[Sequence[Any]], bytes]] = {
    "String": _strings,
    "LowCardinality(String)": _repeated,
    "Array(LowCardinality(String))": _lists,
    "Array(String)": _lists,
    "UInt8": _numbers("<u1"),
    "UInt16": _numbers("<u2"),
    "UInt32": _numbers("<u4"),
    "UInt64": _numbers("<u8"),
    "DateTime64(3, 'UTC')": _numbers("<i8"),
}


def _encoder(kind: str) -> Callable[[Sequence[Any]], bytes]:
    if kind not in _ENCODERS:
        raise Fatal(f"no encoding for columns of type {kind}; expected one of {', '.join(_ENCODERS)}")
    return _ENCODERS[kind]
