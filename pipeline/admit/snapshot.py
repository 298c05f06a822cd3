"""A ledger has one stored form: canonical JSON, whose digest the log names."""

from __future__ import annotations

import msgspec

from pipeline.admit.replay_window import ReplayWindow
from pipeline.errors import Malformed
from pipeline.events.records import LEDGER_FORMAT, Charge


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


class LedgerPosition(msgspec.Struct):
    """A ledger is folded up to here in each of its sources."""

    next_request: int = msgspec.field(name="requests")
    next_completion: int = msgspec.field(name="completions")
    time: int
    """The latest time of a record, Unix ms."""
    control_version: int = msgspec.field(name="control")


class LedgerSnapshot(msgspec.Struct):
    """The whole state of one partition; its tables are those of the ledger itself."""

    format: int
    position: LedgerPosition = msgspec.field(name="marks")
    numbers: dict[str, int]
    times: dict[str, list[int]]
    sequences: dict[str, int]
    open: dict[str, Reservation]
    sessions: dict[str, ReplayWindow]
    idempotent: dict[str, tuple[str, int]]
    accounts: dict[str, bytes]

    @classmethod
    def empty(cls) -> LedgerSnapshot:
        """Give the state before the first record."""
        return cls(LEDGER_FORMAT, LedgerPosition(0, 0, 0, -1), {}, {}, {}, {}, {}, {}, {})

    def pack(self) -> bytes:
        """Give the canonical bytes."""
        return msgspec.json.encode(self, order="sorted")


def unpack(raw: bytes) -> LedgerSnapshot:
    """Read the bytes that ``pack`` gave. Raises Malformed where a build of another format did."""
    try:
        snapshot = msgspec.json.decode(raw, type=LedgerSnapshot)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a ledger: {error}") from error
    if snapshot.format != LEDGER_FORMAT:
        raise Malformed(f"expected a ledger of format {LEDGER_FORMAT}, got {snapshot.format}")
    return snapshot
