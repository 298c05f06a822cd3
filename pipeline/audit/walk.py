"""A walk over one log compares manifests and rows, in order, with what was signed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from pipeline.audit.checkpoint import Verifiers, open_checkpoint
from pipeline.audit.faults import Faults
from pipeline.audit.leaves import leaf_value
from pipeline.audit.merkle import Frontier, leaf_hash
from pipeline.audit.replay import Replay
from pipeline.audit.rows import (
    LEAVES,
    Typed,
    keeps_append_time,
    manifest_row,
    origin_name,
    statement,
    typed,
    typed_log,
)
from pipeline.audit.source import SourceRecords
from pipeline.errors import Malformed
from pipeline.events.chain import EMPTY, Position
from pipeline.events.codec import decode, decode_log
from pipeline.events.messages import Manifest
from pipeline.events.records import LogRecord
from pipeline.events.signed_access import fault_of
from pipeline.events.signed_control import ControlFold
from pipeline.tables import RECORDS
from pipeline.topics import BY_NAME

Row = Sequence[Any]
_LEAF, _OFFSET, _TIME, _RULES, _BODY = (RECORDS.columns.index(c) for c in ("leaf", "offset", "time", "rules", "body"))
_MAX_OFFSET = 2**63 - 1
_CHUNK = 1024


class Walk:
    """A walk goes over one origin."""

    def __init__(
        self,
        name: str,
        verifiers: Verifiers,
        faults: Faults,
        source: SourceRecords | None,
        replay: Replay | None,
        acts: ControlFold | None,
    ) -> None:
        self.index = self.batches = self.rows = self.skipped = self.source_batches = 0
        self.kinds: dict[str, int] = {}
        self._name = name
        self._verifiers = verifiers
        self._faults = faults
        self._source = source
        self._replay = replay
        self._acts = acts
        self._newest: tuple[int, bytes] | None = None
        self._met = False
        self._frontier = Frontier()
        self._leaves: list[bytes] = []
        self._leaf = 0
        self._at: Position | None = None
        self._previous = b""
        self._key = 0
        """Ordinal of the newest log key that has signed here; an older one signs nothing any more."""
        self._batch: Manifest | None = None
        self._offset = -1
        self._content = hashlib.sha256()

    def expect(self, note: str | None) -> None:
        """Expect the log to contain a checkpoint."""
        if note is None:
            return
        try:
            known = open_checkpoint(note, self._verifiers)
        except Malformed as error:
            self._fault(None, f"the known checkpoint: {error}")
            return
        if known.origin != self._name:
            self._fault(None, "the known checkpoint is of another origin")
        else:
            self._newest = known.size, known.root

    def open(self, row: Row) -> bool:
        """Take the next manifest; False where it is none or was there already."""
        try:
            manifest = decode(Manifest, row[-1])
        except (Malformed, TypeError, IndexError):
            self._fault(None, "a manifest that cannot be read")
            return False
        if manifest.index < self.index:
            self._fault(None, f"manifest {manifest.index} is double or out of order")
            return False
        if manifest.index > self.index:
            self._fault(None, f"manifests {self.index} to {manifest.index - 1} are missing")
            self.index = manifest.index
        if manifest_row(manifest) != tuple(row):
            self._fault(None, "the manifest's columns or bytes are not those of its body")
        self._contiguous(manifest)
        self._signed(manifest)
        self._batch, self._content = manifest, hashlib.sha256()
        return True

    def within(self, row: Row) -> bool:
        """Tell whether the row lies before the end of the batch."""
        return self._batch is not None and number(row, _LEAF) < self._batch.size

    def row(self, row: Row) -> None:
        """Check one row and grow the tree by it."""
        batch = self._batch
        assert batch is not None
        leaf, offset, time = (number(row, at) for at in (_LEAF, _OFFSET, _TIME))
        body = row[_BODY]
        if leaf < self._leaf:
            self._fault(leaf, "a row that is double")
            return
        if leaf > self._leaf:
            self._fault(self._leaf, f"rows {self._leaf} to {leaf - 1} are missing")
        self._leaf = leaf + 1
        if not isinstance(body, bytes) or offset < 0:
            self._fault(leaf, "expected a body of bytes and an offset")
            return
        if not max(batch.first, self._offset + 1) <= offset <= batch.last:
            self._fault(leaf, f"offset {offset} is out of order or outside {batch.first} to {batch.last}")
        self._offset = offset
        self._leaves.append(leaf_hash(leaf_value(offset, time, body)))
        if len(self._leaves) == _CHUNK:
            self._grow()
        if self._source is not None:
            self._content.update(struct.pack(">QQ", offset, len(body)) + body)
        self._columns(row, leaf, offset, time, body)
        self.rows += 1

    def close(self) -> None:
        """Compare the rows of the batch with what was signed."""
        batch = self._batch
        assert batch is not None
        self._grow()
        if self._leaf < batch.size:
            self._fault(self._leaf, f"rows {self._leaf} to {batch.size - 1} are missing")
        if self._frontier.size != batch.size or self._frontier.root() != batch.root:
            self._fault(None, "the rows do not give the signed root")
        elif self._frontier.hashes != batch.frontier:
            self._fault(None, "the manifest's frontier is not that of the tree")
        if self._newest is not None and batch.size == self._newest[0]:
            self._met = True
            if batch.root != self._newest[1]:
                self._fault(None, "a known checkpoint of this size has another root: the log was forked")
        self._compare_source(batch)
        self._rejoin(batch)
        self.batches += 1
        self.skipped += batch.skipped
        self.index += 1
        self._at = Position(min(batch.last, _MAX_OFFSET) + 1, batch.chain, batch.source)
        self._previous = hashlib.sha256(batch.checkpoint.encode()).digest()

    def stray(self, row: Row) -> None:
        """Report a row behind the last manifest."""
        self._fault(number(row, _LEAF), "a row that no manifest covers")

    def end(self) -> None:
        """Look for what must come and did not: the manifests are over."""
        if self._newest is None:
            return
        if self._newest[0] > self._leaf:
            self._fault(None, f"the log ends at {self._leaf}, a known checkpoint has {self._newest[0]}: it was cut")
        elif self._newest[0] and not self._met:
            self._fault(None, f"no batch ends at {self._newest[0]} as a known checkpoint does: the log was forked")

    def _contiguous(self, batch: Manifest) -> None:
        position = self._at or Position(0, self._start(batch))
        if batch.origin != self._name or origin_name(batch.generation, batch.topic, batch.partition) != self._name:
            self._fault(None, "the manifest is of another origin")
        if batch.first != position.offset:
            self._fault(None, f"the batch starts at offset {batch.first}, expected {position.offset}")
        if batch.rows < 0 or batch.skipped < 0 or batch.rows + batch.skipped != batch.last + 1 - batch.first:
            self._fault(None, "rows and skipped records do not add up to the offsets of the batch")
        if batch.size != self._leaf + batch.rows:
            self._fault(None, f"the size is {batch.size}, expected {self._leaf + batch.rows}")
        if batch.previous != self._previous:
            self._fault(None, "the manifest does not follow the checkpoint before it")
        if not 1 <= batch.leaves <= LEAVES:
            self._fault(None, f"expected leaves of form 1 to {LEAVES}, got {batch.leaves}")

    def _signed(self, batch: Manifest) -> None:
        try:
            stated = open_checkpoint(batch.checkpoint, self._verifiers)
        except Malformed as error:
            self._fault(None, str(error))
            return
        if (stated.origin, stated.size, stated.root) != (self._name, batch.size, batch.root):
            self._fault(None, "the checkpoint is not over this manifest's origin, size and root")
        if stated.key < self._key:
            self._fault(None, "the checkpoint is signed by a log key that a newer one had replaced before it")
        self._key = max(self._key, stated.key)
        if stated.extensions != (statement(batch),) or stated.time != batch.time // 1000:
            self._fault(None, "the checkpoint was signed for another manifest")

    def _columns(self, row: Row, leaf: int, offset: int, time: int, body: bytes) -> None:
        batch = self._batch
        assert batch is not None
        shown, record = self._read(batch, time, body)
        appended = time if keeps_append_time(batch.topic, batch.leaves) else None
        if appended is not None:
            shown = shown._replace(time=appended)
        self.kinds[shown.kind] = self.kinds.get(shown.kind, 0) + 1
        expected = (self._name, batch.index, leaf, offset, *shown, body)
        stored = (*row[:_RULES], tuple(row[_RULES]), *row[_RULES + 1 :])
        if expected != stored:
            wrong = [c for c, e, s in zip(RECORDS.columns, expected, stored, strict=False) if e != s]
            self._fault(leaf, f"columns are not those of the body: {', '.join(wrong) or 'their number'}")
        if self._acts is not None and (fault := fault_of(body, self._acts)):
            self._fault(leaf, fault)
        if self._replay is not None and record is not None:
            for what in self._replay.push(record, body, appended):
                self._fault(leaf, what)

    def _read(self, batch: Manifest, time: int, body: bytes) -> tuple[Typed, LogRecord | None]:
        if batch.topic == "decisions":
            try:
                record = decode_log(body)
            except Malformed:
                return Typed(time, "malformed"), None
            return typed_log(record), record
        known = batch.topic in BY_NAME
        return (typed(batch.topic, time, body, batch.leaves) if known else Typed(time, "malformed")), None

    def _compare_source(self, batch: Manifest) -> None:
        if self._source is None:
            return
        position = (self._at or Position(0, self._start(batch)))._replace(offset=batch.first)
        agrees = self._source.agrees(position, batch, self._content.digest())
        if agrees is None:
            return
        self.source_batches += 1
        if not agrees:
            self._fault(None, "the source does not hold these records on this history")

    def _rejoin(self, batch: Manifest) -> None:
        """Go on from what was signed, so that one fault is not reported again by every later batch."""
        self._leaf = batch.size
        if self._frontier.size == batch.size and self._frontier.root() == batch.root:
            return
        try:
            self._frontier = Frontier(batch.size, batch.frontier)
        except ValueError:
            self._fault(None, "the manifest's frontier is not one of its size")

    def _grow(self) -> None:
        self._frontier.extend(self._leaves)
        self._leaves = []

    def _start(self, batch: Manifest) -> bytes:
        topic = BY_NAME.get(batch.topic)
        return EMPTY if topic is not None and topic.single_writer else b""

    def _fault(self, leaf: int | None, what: str) -> None:
        self._faults.add(self._name, self.index, -1 if leaf is None else leaf, what)


def number(row: Row, at: int) -> int:
    """Read a whole number of the row; -1 where there is none."""
    value = row[at] if at < len(row) else None
    return value if isinstance(value, int) and 0 <= value <= _MAX_OFFSET else -1
