"""SEAL makes leaves, rows and a signed manifest of the valid records of one source partition.

Reads one partition of ``decisions``, ``alerts``, ``access``, ``control`` or ``deliveries``; writes ``audit`` and the
store's tables; owns the Merkle log of that partition. Pure: the state is a value, recovered from the last manifest.
In ``decisions`` a record counts where its batch is valid (see events.chain); in the others every record counts.
A log that no longer holds what is to be sealed next is Fatal: sealing on would hide the loss.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import lt
from typing import Any

import msgspec

from pipeline.audit.checkpoint import LogKeys, sign_checkpoint
from pipeline.audit.leaves import leaf_digests
from pipeline.audit.merkle import Frontier
from pipeline.audit.rows import (
    LEAVES,
    SEALED,
    keeps_append_time,
    manifest_row,
    origin_name,
    statement,
    typed_many,
)
from pipeline.errors import ConfigError, Fatal
from pipeline.events.chain import ChainReader, Entry, Position
from pipeline.events.codec import encode
from pipeline.events.emission import Emission
from pipeline.events.messages import Manifest
from pipeline.stage import NOT_ASKED, InputBatch, Step
from pipeline.tables import RECORDS
from pipeline.topics import BY_NAME

BATCH_RECORDS = 16_384
BATCH_BYTES = 32 * 1024 * 1024
"""Of one sealed batch: above any source batch, and with its columns below what the store takes at once."""


@dataclass(frozen=True, slots=True)
class SealState:
    """Sealing goes on from here; a function of the last manifest alone."""

    generation: str
    topic: str
    partition: int
    position: Position
    """The next source offset and, for topics with a chain, the digest before it."""
    index: int = 0
    size: int = 0
    frontier: tuple[bytes, ...] = ()
    previous: bytes = b""

    @property
    def origin(self) -> str:
        return origin_name(self.generation, self.topic, self.partition)

    @property
    def chained(self) -> bool:
        return BY_NAME[self.topic].single_writer


@dataclass(frozen=True, slots=True)
class Sealed:
    """One batch is sealed: write ``manifest`` to ``audit``, then insert ``columns`` and ``row`` under ``token``."""

    manifest: Manifest
    columns: tuple[Sequence[Any], ...]
    """One sequence per column of tables.RECORDS, in its order; times are Unix ms."""
    row: tuple[object, ...]
    """The row of tables.MANIFESTS."""
    token: str
    """The store's deduplication token: equal for equal rows."""
    consumed: int
    """Entries that are done with; feed the rest again, with newcomers behind them."""
    state: SealState


@dataclass(slots=True)
class SealStep(Step[SealState]):
    """The batch goes to the store once its manifest is written; None where nothing could be closed."""

    sealed: Sealed | None = None


class SealStage:
    """Seals one partition of one topic."""

    name = "seal"
    reads = (*SEALED, "audit")
    writes = ("audit",)
    signals = ()

    def __init__(self, generation: str, topic: str, partition: int, keys: LogKeys, limit: int = BATCH_RECORDS) -> None:
        """Raises ConfigError for a topic that is not sealed."""
        self._fresh = begin(generation, topic, partition)
        self.keys = keys
        """They sign the next batch; its owner changes them where newer ones are in force."""
        self._limit = limit

    def start(self) -> SealState:
        """Give the state before the first record."""
        return self._fresh

    def fold(self, state: SealState, records: Iterable[Manifest]) -> SealState:
        """Give the state after manifests of this origin. Raises Fatal where they contradict themselves."""
        return resume(state, records)

    def step(self, state: SealState, batch: InputBatch[Entry]) -> SealStep:
        """Close the next batch of the entries that wait; where none does, say so once there was one. Raises Fatal."""
        entries, limit = batch.items, self._limit
        fits = bisect_right(list(accumulate(len(entry.value) for entry in entries)), BATCH_BYTES) or 1
        if fits < len(entries):
            entries, limit = entries[:fits], fits
        if entries:
            sealed = seal(state, entries, batch.now, self.keys, limit, kept_from=batch.kept_from)
        else:
            sealed = heartbeat(state, batch.now, self.keys) if state.index else None
        if sealed is None:
            return SealStep(state)
        emission = Emission("audit", state.partition, b"", encode(sealed.manifest))
        return SealStep(sealed.state, [emission], consumed=sealed.consumed, sealed=sealed)


def begin(generation: str, topic: str, partition: int) -> SealState:
    """Give the state of an origin before its first record. Raises ConfigError for a topic that is not sealed."""
    if topic not in SEALED:
        raise ConfigError(f"seal: expected one of {', '.join(SEALED)}, got {topic}")
    chained = BY_NAME[topic].single_writer
    return SealState(generation, topic, partition, Position() if chained else Position(0, b""))


def resume(state: SealState, manifests: Iterable[Manifest]) -> SealState:
    """Give the state after ``manifests``, the consecutive last ones of the origin (the newest suffices).

    Raises Fatal where they are another origin's, leave a gap, or contradict themselves.
    """
    last: Manifest | None = None
    for manifest in manifests:
        if manifest.origin != state.origin:
            raise Fatal(f"seal: expected manifests of {state.origin}, got one of {manifest.origin}")
        if last is not None and not _follows(last, manifest):
            raise Fatal(f"seal: manifest {manifest.index} of {state.origin} does not follow {last.index}; audit verify")
        last = manifest
    if last is None:
        return state
    try:
        frontier = Frontier(last.size, last.frontier)
    except ValueError as error:
        raise Fatal(f"seal: manifest {last.index} of {state.origin}: {error}") from None
    if frontier.root() != last.root:
        raise Fatal(f"seal: the frontier of manifest {last.index} of {state.origin} does not give its root")
    return _after(state, last)


def seal(
    state: SealState,
    entries: Sequence[Entry],
    time: int,
    keys: LogKeys,
    limit: int = BATCH_RECORDS,
    leaves: int = LEAVES,
    kept_from: int = NOT_ASKED,
) -> Sealed | None:
    """Close the next batch of ``entries``, which start at the state's position; None while none can be closed.

    ``time`` in Unix ms. Whole source batches are taken up to ``limit`` records (one larger than that stands alone, and
    must be there whole). Invalid records alone close a batch only once ``limit`` entries are waiting. Raises Fatal on
    a gap before the first entry, unless all behind ``kept_from`` is there (the markers of transactions leave gaps), or
    on entries out of order.
    """
    if not entries:
        return None
    offsets = [entry.offset for entry in entries]
    if offsets[0] < state.position.offset or (offsets[0] > state.position.offset < kept_from):
        raise Fatal(
            f"seal: {state.origin} goes on at offset {state.position.offset}, the log starts at {offsets[0]}; "
            "records were lost before they were sealed"
        )
    if not all(map(lt, offsets, offsets[1:])):
        raise Fatal(f"seal: entries of {state.origin} are not in offset order")
    valid, position = _valid(state, entries, limit)
    consumed = bisect_left(offsets, position.offset)
    if not valid and (not consumed or len(entries) < limit):
        return None
    return _close(state, valid, position, consumed, time, keys, leaves)


def heartbeat(state: SealState, time: int, keys: LogKeys) -> Sealed:
    """Close a batch without records: its checkpoint tells silence from a cut."""
    return _close(state, [], state.position, 0, time, keys)


def token_of(manifest: Manifest) -> str:
    """Give the deduplication token of the batch."""
    return f"{manifest.origin}:{manifest.index}:{manifest.root.hex()[:16]}"


def columns_of(
    state: SealState, entries: Sequence[Entry], leaves: int = LEAVES
) -> tuple[tuple[Sequence[Any], ...], list[bytes]]:
    """Give the columns of tables.RECORDS and the leaf hashes of records that continue ``state``."""
    count = len(entries)
    offsets = [entry.offset for entry in entries]
    values = [entry.value for entry in entries]
    appended = [entry.time for entry in entries]
    described: list[Sequence[Any]] = list(zip(*typed_many(state.topic, entries, leaves), strict=True))
    if not described:
        return ((),) * len(RECORDS.columns), []
    if keeps_append_time(state.topic, leaves):
        described[0] = appended
    head = ([state.origin] * count, [state.index] * count, range(state.size, state.size + count), offsets)
    return (*head, *described, values), leaf_digests(offsets, described[0], values)


def _valid(state: SealState, entries: Sequence[Entry], limit: int) -> tuple[Sequence[Entry], Position]:
    """Give the records that count, and the position behind everything decided."""
    if not state.chained:
        taken = entries[:limit]
        return taken, Position(taken[-1].offset + 1, b"")
    reader = ChainReader(state.position)
    push, position = reader.push, state.position
    valid: list[Entry] = []
    for entry in entries:
        batch = push(entry)
        if batch:
            if valid and len(valid) + len(batch) > limit:
                break
            valid += batch
        position = reader.at
    return valid, position


def _close(
    state: SealState,
    valid: Sequence[Entry],
    position: Position,
    consumed: int,
    time: int,
    keys: LogKeys,
    leaves: int = LEAVES,
) -> Sealed:
    columns, digests = columns_of(state, valid, leaves)
    frontier = Frontier(state.size, state.frontier)
    frontier.extend(digests)
    first, last = state.position.offset, position.offset - 1
    draft = Manifest(
        generation=state.generation,
        origin=state.origin,
        index=state.index,
        topic=state.topic,
        partition=state.partition,
        first=first,
        last=last,
        chain=position.digest,
        rows=len(valid),
        skipped=last + 1 - first - len(valid),
        size=frontier.size,
        root=frontier.root(),
        frontier=frontier.hashes,
        previous=state.previous,
        time=time,
        checkpoint="",
        leaves=leaves,
        source=position.source,
    )
    note = sign_checkpoint(keys, draft.origin, draft.size, draft.root, time // 1000, (statement(draft),))
    manifest = msgspec.structs.replace(draft, checkpoint=note)
    return Sealed(manifest, columns, manifest_row(manifest), token_of(manifest), consumed, _after(state, manifest))


def _after(state: SealState, manifest: Manifest) -> SealState:
    return replace(
        state,
        position=Position(manifest.last + 1, manifest.chain, manifest.source),
        index=manifest.index + 1,
        size=manifest.size,
        frontier=manifest.frontier,
        previous=hashlib.sha256(manifest.checkpoint.encode()).digest(),
    )


def _follows(before: Manifest, after: Manifest) -> bool:
    return (
        after.index == before.index + 1
        and after.first == before.last + 1
        and after.size == before.size + after.rows
        and after.previous == hashlib.sha256(before.checkpoint.encode()).digest()
    )
