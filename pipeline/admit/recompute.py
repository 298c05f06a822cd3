"""Ledgers are worked out again from ``decisions``, for people who ask; nothing is written.

The verifier's replay derives each record, here from Kafka's own copy of the log instead of the store's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import TopicPartition

from pipeline.admit import upgrade
from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.rules import RULES, rules_of
from pipeline.admit.stored_snapshots import start_of, stored_snapshots
from pipeline.admit.upgrade import AnyLedger
from pipeline.audit.replay import Replay
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Malformed
from pipeline.events.chain import Entry, Position
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision, Outcome, SnapshotChunk, SnapshotMark
from pipeline.kafka.chained_log import ChainedLog
from pipeline.kafka.offsets import Offsets

MAX_FAULTS = 100
Progress = Callable[[str], None]


class Documents(NamedTuple):
    """Each control document by offset and stored bytes, and the digest of the deployment whose they are."""

    stored: Sequence[tuple[int, bytes]] = ()
    pin: str = ""


@dataclass(slots=True)
class Recomputation:
    """One partition's ledger was worked out again, with these counts; ``faults`` are the first of ``faults_total``."""

    partition: int
    start: int = 0
    """Offset in ``decisions`` of the first record: 0, or that of the oldest snapshot that is kept."""
    records: int = 0
    skipped: int = 0
    decisions: int = 0
    outcomes: int = 0
    charges: int = 0
    not_derivable: int = 0
    open: int = 0
    snapshots: int = 0
    """Marks whose digest is that of the ledger worked out again."""
    newest: int = -1
    """Position of the newest stored snapshot that was compared; -1 for none."""
    faults: list[str] = field(default_factory=list)
    faults_total: int = 0

    @property
    def equal(self) -> bool:
        """Tell whether all came out again as it is stored."""
        return not self.faults_total

    def fault(self, what: str) -> None:
        self.faults_total += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(what)


class StoredLedger(NamedTuple):
    """A snapshot with the ledger that it holds."""

    image: SnapshotChunk
    ledger: AnyLedger

    @property
    def start(self) -> Position:
        """Position in ``decisions`` at which the log goes on."""
        return start_of(self.image, self.ledger)

    @property
    def next_request(self) -> int:
        """No request from here on has a decision yet."""
        ledger = self.ledger
        return ledger.answered if isinstance(ledger, Ledger6) else ledger.position.next_request


class FoundDecision(NamedTuple):
    """A stored decision, and the replay that stands right before it."""

    record: Decision
    body: bytes
    replay: Replay


class DecisionLog:
    """One partition of ``decisions`` with its snapshots, for reading alone."""

    def __init__(self, kafka: KafkaEndpoint, partition: int, tell: Progress) -> None:
        self.partition = partition
        self._kafka = kafka
        self._tell = tell
        self._offsets = Offsets(kafka)
        self._log = ChainedLog(kafka, "decisions", partition, self._offsets)

    @property
    def skipped(self) -> int:
        """Records since ``entries`` began that belong to no valid batch."""
        return self._log.skipped

    async def begin(self) -> int:
        return await self._offsets.begin(TopicPartition("decisions", self.partition))

    async def snapshots(self) -> list[StoredLedger]:
        """Give the snapshots that are stored whole, newest first."""
        found = []
        for image in await stored_snapshots(self._kafka, self.partition, self._offsets):
            with contextlib.suppress(Malformed):
                found.append(StoredLedger(image, upgrade.load(image.content)))
        return found

    async def entries(self, start: Position) -> AsyncIterator[Entry]:
        """Give the valid records from ``start`` to the end."""
        await self._log.start(start)
        count = 0
        while await self._log.behind():
            self._tell(f"decisions[{self.partition}]: {count:,} records, at offset {self._log.position.offset:,}")
            for entry in await self._log.catch_up():
                yield entry
                count += 1

    async def trusts(self, stored: StoredLedger) -> bool:
        """Tell whether the mark of a snapshot lies where its writer put it."""
        await self._log.start(stored.start)
        entries = await self._log.catch_up(limit=1)
        mark = decode_log(entries[0].value) if entries else None
        return isinstance(mark, SnapshotMark) and mark.digest == stored.image.digest

    async def close(self) -> None:
        await self._log.close()
        await self._offsets.close()


async def recompute(log: DecisionLog, documents: Documents) -> Recomputation:
    """Work the ledger of a partition out again and compare it with every mark and with the newest stored snapshot."""
    found = Recomputation(log.partition)
    start, replay = await _begin(log, documents, reversed(await log.snapshots()))
    found.start = start.offset
    marked: dict[bytes, int] = {}
    async for entry in log.entries(start):
        _take(found, replay, entry, marked)
    found.skipped = log.skipped
    found.decisions, found.outcomes = replay.derived, replay.settled
    found.not_derivable, found.open = replay.foreign, replay.open
    stored = [one.image for one in await log.snapshots()]
    found.newest = max((image.position for image in stored if image.digest in marked), default=-1)
    last = max(marked.values(), default=-1)
    # one that is further on was taken meanwhile, and may have taken the place of what is marked here
    if last > max((image.position for image in stored), default=-1):
        found.fault(f"offset {last}: the snapshot that is marked here is not stored whole")
    return found


def _take(found: Recomputation, replay: Replay, entry: Entry, marked: dict[bytes, int]) -> None:
    found.records += 1
    try:
        record = decode_log(entry.value)
    except Malformed:
        found.fault(f"offset {entry.offset}: a record that cannot be read")
        return
    faults = replay.push(record, entry.value, entry.time)
    for what in faults:
        found.fault(f"offset {entry.offset}: {what}")
    if isinstance(record, Decision | Outcome):
        found.charges += len(record.charges)
    elif isinstance(record, SnapshotMark):
        marked[record.digest] = record.position
        found.snapshots += not faults


async def current_ledger(log: DecisionLog) -> AnyLedger:
    """Fold the newest snapshot and everything behind it."""
    start, replay = await _begin(log, Documents(), await log.snapshots(), nearest=True)
    async for entry in log.entries(start):
        replay.fold(decode_log(entry.value), entry.time)
    return replay.ledger  # type: ignore[return-value]


async def find_decision(log: DecisionLog, documents: Documents, request: int) -> FoundDecision | None:
    """Find the decision about offset ``request`` of ``requests``, folding from the nearest snapshot before it."""
    before = [stored for stored in await log.snapshots() if stored.next_request <= request]
    start, replay = await _begin(log, documents, before, nearest=True)
    async for entry in log.entries(start):
        record = decode_log(entry.value)
        if isinstance(record, Decision) and record.facts.start <= request <= record.facts.offset:
            return FoundDecision(record, entry.value, replay)
        replay.fold(record, entry.time)
    return None


async def _begin(
    log: DecisionLog, documents: Documents, snapshots: Iterable[StoredLedger], *, nearest: bool = False
) -> tuple[Position, Replay]:
    """Give a replay from the log's beginning, or from the first snapshot that is trusted and reaches what is kept.

    ``nearest`` takes a snapshot also where the log is kept whole. Raises ConfigError where nothing reaches that far.
    """
    begin = await log.begin()
    for stored in snapshots if begin or nearest else ():
        if stored.image.position >= begin and await log.trusts(stored):
            return stored.start, Replay(
                rules_of(stored.ledger), log.partition, documents.stored, stored.ledger, documents.pin
            )
    if begin:
        raise ConfigError(
            f"decisions[{log.partition}] is kept from offset {begin} on, and no snapshot that is stored reaches what "
            "is asked for. Run: sluice audit verify, which derives the whole history from the store."
        )
    return Position(), Replay(RULES, log.partition, documents.stored, pin=documents.pin)
