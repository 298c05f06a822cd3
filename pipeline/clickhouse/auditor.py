"""Feeds the offline verifier from the store, and on request from Kafka's own copy of the log."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pipeline.audit.faults import Report
from pipeline.audit.replay import Replay, Rules
from pipeline.audit.verify import Row, Verifier
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import ConfigError, Retryable
from pipeline.events.chain import Entry
from pipeline.events.signed_control import ControlFold
from pipeline.kafka.reader import PartitionReader
from pipeline.retry import retry_blocking
from pipeline.tables import MANIFESTS, RECORDS, Table

_PAGE = 20_000
CONTROL_S = 10.0
_NEWEST_CONTROL = (
    "SELECT JSONExtractInt(body, 'control') FROM records WHERE origin = {origin:String} AND leaf < {size:UInt64} "
    "AND kind IN ('decision', 'policy') ORDER BY leaf DESC LIMIT 1"
)
Progress = Callable[[str], None]


class _End(NamedTuple):
    """One log is sealed up to here."""

    batch: int
    size: int
    last: int
    """Offset in the source topic."""


class Auditor:
    """Verifies every origin of one store, as of its construction: batches sealed later are left for next time.

    ``control`` is sealed by itself, so its end is taken last, and awaited for up to CONTROL_S where decisions name a
    version that it does not hold yet. ``pin`` is the digest of the first deployment document.
    """

    def __init__(self, store: ClickHouseStore, verifier: Verifier, rules: Sequence[Rules], pin: str) -> None:
        self._store = store
        self._verifier = verifier
        self._rules, self._pin = rules, pin
        self._folds: dict[str, ControlFold] = {}
        self._ends = self._read_ends()
        if not self._ends:
            raise ConfigError("the store holds no manifest yet; wait for the first sealed batch (1 s after a request)")
        # one that does not come is named by the verification itself
        with contextlib.suppress(Retryable):
            retry_blocking(self._catch_up_control, CONTROL_S, "the documents that decisions name, in the sealed log")

    def verify(self, say: Progress, sources: dict[str, list[Entry]] | None = None) -> Report:
        """Walk all logs, the decisions with their derivation. ``sources``: origin → records of the topic."""
        for origin in self._ends:
            say(f"verifying {origin}")
            topic = origin.rsplit("/", 2)[1]
            replay = self._replay(origin) if topic == "decisions" else None
            self._verifier.origin(
                origin,
                self._rows(MANIFESTS, origin, "batch", self._ends[origin].batch + 1),
                self._rows(RECORDS, origin, "leaf", self._ends[origin].size),
                source=(sources or {}).get(origin),
                replay=replay,
                acts=self._fold(origin) if topic == "access" else None,
            )
        return self._verifier.report()

    def origins(self) -> list[str]:
        return list(self._ends)

    def _read_ends(self) -> dict[str, _End]:
        sql = "SELECT origin, max(batch), max(size), max(last) FROM manifests GROUP BY origin ORDER BY origin"
        return {str(origin): _End(*map(int, numbers)) for origin, *numbers in self._store.query(sql)}

    def _catch_up_control(self) -> None:
        """Take the end of each control log anew. Raises Retryable while a decision names a document behind it."""
        now = self._read_ends()
        for origin in [name for name in self._ends if name.rsplit("/", 2)[1] == "decisions"]:
            control = _control_of(origin)
            self._ends |= {control: now[control]} if control in now else {}
            sealed = now[control].last if control in now else -1
            named = self._store.query(_NEWEST_CONTROL, {"origin": origin, "size": self._ends[origin].size})
            if named and int(named[0][0]) > sealed:
                raise Retryable(f"{control} is sealed up to {sealed}, decisions name {named[0][0]}")

    def _fold(self, origin: str) -> ControlFold:
        """Fold the sealed documents of the same generation, with their append times."""
        control = _control_of(origin)
        if control in self._folds:
            return self._folds[control]
        fold = self._folds[control] = ControlFold(self._pin)
        size = self._ends[control].size if control in self._ends else 0
        offset, time, body = (RECORDS.columns.index(name) for name in ("offset", "time", "body"))
        for row in self._rows(RECORDS, control, "leaf", size):
            fold.read(row[offset], row[body], row[time])
        return fold

    def _replay(self, origin: str) -> Replay:
        return Replay(self._rules, int(origin.rsplit("/", 1)[1]), self._control(origin), pin=self._pin)

    def _control(self, origin: str) -> Iterator[tuple[int, bytes]]:
        control = _control_of(origin)
        size = self._ends[control].size if control in self._ends else 0
        offset, body = RECORDS.columns.index("offset"), RECORDS.columns.index("body")
        return ((row[offset], row[body]) for row in self._rows(RECORDS, control, "leaf", size))

    def _rows(self, table: Table, origin: str, by: str, end: int) -> Iterator[Row]:
        """Rows below ``end`` in order; those beyond the end that a forger may have added come last, and are stray."""
        kinds = {"time": "toUnixTimestamp64Milli(time)", "body": "base64Encode(body)"}
        columns = ", ".join(kinds.get(name, f"`{name}`") for name in table.columns)
        body = table.columns.index("body")
        place = table.columns.index(by)
        low = 0
        while low < end:
            sql = (
                f"SELECT {columns} FROM `{table.name}` WHERE origin = {{origin:String}} "  # noqa: S608 - from tables.py
                f"AND `{by}` >= {{low:UInt64}} AND `{by}` < {{high:UInt64}} ORDER BY `{by}`"
            )
            page = self._store.query(sql, {"origin": origin, "low": low, "high": min(end, low + _PAGE)})
            low += _PAGE
            for row in page:
                yield [*row[:body], base64.b64decode(row[body]), *row[body + 1 :]] if place != body else row


def _control_of(origin: str) -> str:
    """Name the log of control documents of the same generation."""
    return f"{origin.rsplit('/', 2)[0]}/control/0"


async def read_sources(kafka: KafkaEndpoint, origins: list[str]) -> dict[str, list[Entry]]:
    """Read what Kafka still holds of each origin's topic."""
    found: dict[str, list[Entry]] = {}
    for origin in origins:
        _, topic, partition = origin.rsplit("/", 2)
        reader = PartitionReader(kafka, topic, int(partition))
        try:
            await reader.start(await reader.begin())
            found[origin] = [item.entry() for item in await reader.read_to_end()]
        finally:
            await reader.close()
    return found


def as_document(report: Report) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "ok": report.ok,
        **{name: getattr(report, name) for name in report.__struct_fields__ if name != "faults"},
        "faults": [{"origin": f.origin, "batch": f.batch, "leaf": f.leaf, "what": f.what} for f in report.faults],
    }
