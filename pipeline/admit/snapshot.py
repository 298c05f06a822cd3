"""A ledger has one stored form, whose digest the log names: its position, its tables entry by entry, then packed rows.

The form is made in pieces, each by a short computation, so that a large ledger is stored without standing still. A
table lies in buckets by the checksum of the names, whose number follows from the table's size; it needs no sorting as
a whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, get_origin

import msgspec

from pipeline.admit.cells import BudgetUse, RateLevel, SlidingLog
from pipeline.admit.idempotency import IdempotencyKeys
from pipeline.admit.replay_window import ReplayWindow
from pipeline.errors import Malformed
from pipeline.events.records import DECIDER, LEDGER_FORMAT, Charge

_MAGIC = b"sluice ledger\n"
_FRAME = struct.Struct("<BI")
"""The number of a table, counted from one in the order of ``LedgerSnapshot``, and the length."""
_HEAD, _ROWS = 0, 255
"""Numbers of what is no table: the position comes first, the rows of idempotency keys end the bytes."""
_BUCKET = 512
"""Entries of a bucket, on average."""
_PAUSE = 4096
"""Entries that are put in buckets in one go."""


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """An admitted request waits for its outcome."""

    request: str
    offset: int
    time: int
    deadline: int
    organisation: str
    tenant: str
    principal: str
    client_request: str
    lane: int
    charges: tuple[Charge, ...]
    idempotency: str = ""
    """The key that is free again should the request end without an answer; empty for none."""
    price: tuple[int, int] | None = None
    """As the decision names it; its cost is settled by this price, whatever the model's is by then."""
    estimated: bool = False
    """Usage above what was reserved is charged in full."""
    input_bound: int = 0
    max_tokens: int = 0
    """What is reserved of input and output tokens; 0 where decider 6 reserved, which kept their sum alone."""
    decider: int = DECIDER
    """Which admitted it."""


class LedgerPosition(msgspec.Struct):
    """A ledger is folded up to here in each of its sources."""

    next_request: int = msgspec.field(name="requests")
    next_completion: int = msgspec.field(name="completions")
    time: int
    """The latest time of a record, Unix ms."""
    control_version: int = msgspec.field(name="control")
    control_time: int = 0
    """When that version came into force, Unix ms."""


class _Head(msgspec.Struct):
    format: int
    position: LedgerPosition


class LedgerSnapshot(msgspec.Struct):
    """The whole state of one partition; its tables are those of the ledger itself."""

    position: LedgerPosition
    idempotency: IdempotencyKeys
    rates: dict[str, RateLevel] = {}
    windows: dict[str, SlidingLog] = {}
    budgets: dict[str, BudgetUse] = {}
    reserved: dict[str, int] = {}
    sequences: dict[str, int] = {}
    open: dict[str, Reservation] = {}
    sessions: dict[str, dict[str, ReplayWindow]] = {}
    """By key, then by the client's session."""
    accounts: dict[str, bytes] = {}

    @classmethod
    def empty(cls) -> LedgerSnapshot:
        """Give the state before the first record."""
        return cls(LedgerPosition(0, 0, 0, -1), IdempotencyKeys())

    def pieces(self) -> Iterator[bytes]:
        """Give the canonical bytes in pieces; an empty one only lets others run."""
        yield _MAGIC + _framed(_HEAD, _Head(LEDGER_FORMAT, self.position))
        for number, name in enumerate(_TABLES, 1):
            for bucket in _buckets(getattr(self, name)):
                yield _framed(number, bucket) if bucket else b""
        yield _FRAME.pack(_ROWS, 0)
        yield from self.idempotency.rows(self.position.time)


def unpack(raw: bytes) -> LedgerSnapshot:
    """Read the bytes that ``pieces`` gave. Raises Malformed where a build of another format did."""
    if not raw.startswith(_MAGIC):
        raise Malformed(f"not a ledger: expected {_MAGIC!r} at its beginning")
    try:
        return _unpacked(memoryview(raw)[len(_MAGIC) :])
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error, LookupError) as error:
        raise Malformed(f"not a ledger: {error}") from error


def _unpacked(raw: memoryview) -> LedgerSnapshot:
    snapshot = LedgerSnapshot.empty()
    decoders = list(_TABLES.items())
    number = _HEAD
    while number != _ROWS:
        number, length = _FRAME.unpack_from(raw)
        content, raw = raw[_FRAME.size :][:length], raw[_FRAME.size + length :]
        if number == _HEAD:
            head = msgspec.msgpack.decode(content, type=_Head)
            if head.format != LEDGER_FORMAT:
                raise Malformed(f"expected a ledger of format {LEDGER_FORMAT}, got {head.format}")
            snapshot.position = head.position
        elif number != _ROWS:
            name, decoder = decoders[number - 1]
            getattr(snapshot, name).update(decoder.decode(content))
    snapshot.idempotency = IdempotencyKeys.load(raw)
    return snapshot


def _framed(number: int, content: Any) -> bytes:
    encoded = _encode(content)
    return _FRAME.pack(number, len(encoded)) + encoded


def _buckets(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Share a table out by the checksum of its names; empty ones come between, while names are still read."""
    count = 1 << (len(table) // _BUCKET).bit_length()
    buckets: list[list[str]] = [[] for _ in range(count)]
    for nth, name in enumerate(table, 1):
        buckets[zlib.crc32(name.encode()) % count].append(name)
        if not nth % _PAUSE:
            yield {}
    for names in buckets:
        yield {name: table[name] for name in names}


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_TABLES = {
    field.name: msgspec.msgpack.Decoder(field.type)
    for field in msgspec.structs.fields(LedgerSnapshot)
    if get_origin(field.type) is dict
}
