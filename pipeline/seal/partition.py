"""SEAL over Kafka and the store, one partition: gather, sign, write the manifest, insert the rows.

Write order and what a crash between two steps costs:

1. the manifests of one step, one batch of ``audit`` by compare-and-swap. Before: nothing was sealed.
2. one insert per batch with its deduplication token. Before or within: the next owner inserts the last batch of each
   origin again, which adds what is missing and nothing else. No further batch is signed before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from pipeline.audit.checkpoint import LogKeys
from pipeline.audit.rows import manifest_row
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.clock import now_ms
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal
from pipeline.events.chain import Entry
from pipeline.events.messages import Manifest
from pipeline.kafka.chained_log import ChainedLog
from pipeline.kafka.inbox import Inbox
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.metrics import LAG_SECONDS, SEAL_AGE, MetricSample
from pipeline.retry import retry_forever
from pipeline.seal.batch import BATCH_RECORDS, SealStage, SealState, SealStep, seal, token_of
from pipeline.seal.signer import LogSigner
from pipeline.seal.tails import read_tails, sealed_in
from pipeline.stage import NOT_ASKED, InputBatch
from pipeline.tables import MANIFESTS, RECORDS

_log = logging.getLogger(__name__)
_HEARTBEAT_S = 600.0


@dataclass(frozen=True, slots=True)
class SealContext:
    """The partitions of one sealer share these."""

    kafka: KafkaEndpoint
    generation: str
    signer: LogSigner
    store: ClickHouseStore
    offsets: Offsets
    batch: int = BATCH_RECORDS
    interval_ms: int = 1000


@dataclass(slots=True)
class OriginQueue:
    """One origin is being sealed: its stage and state, and the records that have arrived since."""

    stage: SealStage
    state: SealState
    inbox: Inbox
    signed_with: LogKeys | None
    """The keys of its last manifest, None for others than those in use: it tells at once that they are in force."""
    since: float = field(default_factory=time.monotonic)
    """When the oldest waiting record arrived, or the last batch was closed."""

    def silent(self, keys: LogKeys) -> bool:
        """Tell whether nothing is to be sealed: no record, no heartbeat that is due, and no newer keys to be told."""
        changed = self.signed_with is not keys and self.state.index > 0
        return not self.inbox.waiting and not changed and time.monotonic() - self.since < _HEARTBEAT_S

    def due(self, batch: int, interval_s: float) -> bool:
        waiting = len(self.inbox.waiting)
        return waiting >= batch or (waiting > 0 and time.monotonic() - self.since >= interval_s)


class SealPartition:
    """The single writer of one partition of ``audit``, as long as nobody else is."""

    def __init__(self, context: SealContext, partition: int) -> None:
        self._context, self._partition = context, partition
        self._log = ChainedLog(context.kafka, "audit", partition, context.offsets)
        self._arrived = asyncio.Event()
        self._stop = asyncio.Event()
        self._serving = False
        self._sources: list[OriginQueue] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Take the partition over and seal it until ``stop``. Raises Fatal."""
        self._stop = stop
        try:
            while not stop.is_set():
                await retry_forever(self._step, stop, f"seal[{self._partition}] to go on")
        finally:
            await self._drop_sources()
            await self._log.close()

    def readings(self) -> list[MetricSample]:
        """Tell how far sealing is behind; a record counts until its rows are stored."""
        lags = [reading for source in self._sources for reading in source.inbox.lag()]
        ages = [MetricSample(SEAL_AGE, value, labels) for name, value, labels in lags if name == LAG_SECONDS]
        return [*lags, *ages]

    async def _step(self) -> None:
        serving, self._serving = self._serving, False
        # after an error the partition is taken over again, which compares the last batches with the store
        self._serving = await (self._poll_once() if serving else self._take_over())

    async def _take_over(self) -> bool:
        """Open every source behind its last sealed batch; give False where another writer came first."""
        await self._drop_sources()
        context = self._context
        position, tails = await read_tails(context.kafka, context.offsets, context.generation, self._partition)
        await self._log.start(position)
        if await self._log.behind():
            return False
        for topic in sealed_in(self._partition):
            keys = context.signer.keys()
            stage = SealStage(context.generation, topic, self._partition, keys, context.batch)
            fresh = stage.start()
            tail = tails.get(fresh.origin, [])
            state = stage.fold(fresh, tail)
            if tail:
                context.signer.require_newest(tail[-1])
                await self._insert_again(stage.fold(fresh, tail[:-1]), tail[-1])
            reader = PartitionReader(context.kafka, topic, self._partition, context.offsets, bulk=True)
            inbox = Inbox(reader, self._arrived, 4 * context.batch)
            signed = not tail or keys.signed(tail[-1].checkpoint)
            self._sources.append(OriginQueue(stage, state, inbox, keys if signed else None))
            await reader.start(state.position.offset)
            inbox.start()
        return True

    async def _poll_once(self) -> bool:
        """Seal what is due; give False where another writer came first."""
        interval_s = self._context.interval_ms / 1000
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), interval_s)
        self._arrived.clear()
        for source in self._sources:
            # a source that broke while nothing waited must not look like a quiet one
            source.inbox.peek(0)
        closed: list[tuple[OriginQueue, SealStep]] = []
        keys = self._context.signer.keys()
        for source in self._sources:
            if source.silent(keys):
                continue
            if source.due(self._context.batch, interval_s) or not source.inbox.waiting:
                source.stage.keys = keys
                step = await self._close(source)
                if step.sealed is not None:
                    closed.append((source, step))
        if not closed:
            # what waits is due soon, and then nothing new need arrive
            await asyncio.sleep(min(0.05, interval_s))
            if any(source.inbox.waiting for source in self._sources):
                self._arrived.set()
            return True
        if await self._log.append([emission.value for _, step in closed for emission in step.emissions]) is None:
            _log.warning("seal[%d]: another writer came first", self._partition)
            return False
        for source, step in closed:
            assert step.sealed is not None
            await self._insert(step.sealed.manifest, step.sealed.columns)
            source.inbox.drop(step.consumed)
            source.state = step.state
            source.signed_with = keys
            source.since = time.monotonic()
        self._arrived.set()
        return True

    async def _close(self, source: OriginQueue) -> SealStep:
        entries = [item.entry() for item in source.inbox.peek(self._context.batch)]
        kept_from = NOT_ASKED
        if entries and entries[0].offset > source.state.position.offset:
            kept_from = await source.inbox.reader.begin()
        return source.stage.step(source.state, InputBatch(entries, now_ms(), kept_from=kept_from))

    async def _insert(self, manifest: Manifest, columns: Sequence[Sequence[Any]]) -> None:
        """Insert until the store has it; the log is ahead of the store meanwhile, so nothing else may happen first."""
        parts = [(RECORDS, columns), (MANIFESTS, [[value] for value in manifest_row(manifest)])]

        async def insert() -> None:
            await asyncio.to_thread(self._context.store.insert_batch, parts, token_of(manifest))

        await retry_forever(insert, self._stop, f"the store to take batch {manifest.index} of {manifest.origin}")

    async def _insert_again(self, before: SealState, last: Manifest) -> None:
        """The last sealed batch once more, from the source; it may have been signed and never inserted."""
        columns: Sequence[Sequence[Any]] = ()
        begin = await self._context.offsets.begin(TopicPartition(last.topic, last.partition))
        if last.rows and begin > last.first:
            await self._require_stored(last, begin)
        elif last.rows:
            entries = await self._entries(last)
            limit = max(self._context.batch, len(entries))
            again = seal(before, entries, last.time, self._context.signer.keys(), limit, last.leaves, begin)
            if again is None or again.manifest.root != last.root:
                raise Fatal(f"seal: {last.origin} batch {last.index} does not come out of its source again")
            columns = again.columns
        await self._insert(last, columns)

    async def _require_stored(self, last: Manifest, begin: int) -> None:
        """The rows of a batch must be in the store where its source, after a long rest, is no more."""

        async def count() -> int:
            return await asyncio.to_thread(self._context.store.count_batch, last.origin, last.index)

        rows = await retry_forever(count, self._stop, f"the store to count batch {last.index} of {last.origin}")
        if rows != last.rows:
            raise Fatal(
                f"{last.origin} batch {last.index}: expected {last.rows} rows in the store, got {rows}, and "
                f"{last.topic}[{last.partition}] now begins at {begin}, behind {last.first}. Restore the store or the "
                "topic from a copy, then start again."
            )

    async def _entries(self, manifest: Manifest) -> list[Entry]:
        reader = PartitionReader(self._context.kafka, manifest.topic, manifest.partition, self._context.offsets)
        entries: list[Entry] = []
        try:
            await reader.start(manifest.first, manifest.last + 1)
            while reader.position <= manifest.last:
                entries += [item.entry() for item in await reader.poll() if item.offset <= manifest.last]
        finally:
            await reader.close()
        return entries

    async def _drop_sources(self) -> None:
        sources, self._sources = self._sources, []
        for source in sources:
            await source.inbox.close()
