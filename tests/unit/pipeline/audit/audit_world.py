"""A small history made by the real rules, stored, chained, sealed, and laid out as the store's rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from detectors.base import Finding
from pipeline.admit.decide import decide, expired, outcome
from pipeline.admit.ledger import Ledger
from pipeline.audit.checkpoint import LogKeys, Verifiers
from pipeline.audit.faults import Report
from pipeline.audit.replay import Replay, Rules
from pipeline.audit.verify import Verifier
from pipeline.events.chain import Entry, Position, batch_digest, links
from pipeline.events.codec import encode
from pipeline.events.control import Control, parse
from pipeline.events.ids import GRACE_MS
from pipeline.events.messages import Completion, Manifest
from pipeline.events.records import ControlMark, Facts, LogRecord, SnapshotMark, Tick, time_of
from pipeline.seal.batch import Sealed, begin, heartbeat, seal

START = 1_790_000_000_000
KEYS = LogKeys("sluice.test/log", b"e" * 32, b"m" * 32)
OTHER_KEYS = LogKeys("sluice.test/log", b"x" * 32, b"y" * 32)
RULES = (Rules(Ledger, decide, outcome, expired, GRACE_MS),)
ORIGIN = "g1/decisions/0"

DOCUMENTS: list[bytes] = [
    json.dumps(document).encode()
    for document in (
        {"doc": "deployment", "id": "deployment", "generation": "g1", "partitions": 4},
        {
            "doc": "plan",
            "id": "small",
            "models": ["glossary"],
            "tenant": [{"id": "day", "meter": "budget", "unit": "tokens", "amount": 600, "period_s": 86400}],
            "principal": [{"id": "open", "meter": "open", "unit": "tokens", "amount": 80}],
        },
        {"doc": "model", "id": "glossary", "context": 256},
        {"doc": "organisation", "id": "acme"},
        {
            "doc": "tenant",
            "id": "acme",
            "organisation": "acme",
            "plan": "small",
            "data_key": "-",
            "hpke_public": "-",
            "hpke_private": "-",
        },
        {"doc": "principal", "id": "ann", "tenant": "acme"},
        {"doc": "key", "id": "k1", "principal": "ann", "secret": "-"},
        {"doc": "nonsense"},
    )
]


def control() -> Control:
    found = Control()
    for version, raw in enumerate(DOCUMENTS[:-1]):
        found.apply(version, parse(raw))
    found.skip(len(DOCUMENTS) - 1)
    return found


def history(count: int = 24) -> list[LogRecord]:
    """Admissions, refusals, outcomes, an expiry and marks, as ADMIT would write them."""
    ledger, documents = Ledger(), control()
    records: list[LogRecord] = []

    def write(record: LogRecord) -> None:
        ledger.apply(record)
        records.append(record)

    write(ControlMark(ledger.time, documents.version))
    now, done = START, 0
    for offset in range(count):
        now += 250
        found = (Finding("injection.override", 3, 90, 0, 5, "clean", 0),) if offset % 7 == 3 else ()
        facts = Facts(
            offset=offset,
            time=now,
            kind="inference",
            key="k1" if offset % 5 else "nobody",
            session="s",
            counter=offset + 1,
            client_request=f"r{offset}",
            model="glossary",
            max_tokens=10,
            input_bound=5,
            deadline=now + 30_000,
            findings=found,
        )
        write(decide(ledger, documents, 0, facts))
        if offset % 3 == 2 and ledger.open:
            held = next(iter(ledger.open.values()))
            told = ("w1", "a", "glossary", "stop", 5, 4)
            report = Completion(held.request, "acme", "acme", "finished", *told, version=3)
            made = outcome(ledger, done, now, report)
            assert made is not None
            write(made)
            done += 1
    now += 60_000
    write(SnapshotMark(ledger.time, len(records), ledger.digest(), 0, 1))
    write(Tick(now))
    write(expired(ledger, next(ledger.due(now, GRACE_MS)), now))
    return records


def chained(values: Sequence[bytes], step: int = 5, times: Sequence[int] = ()) -> list[Entry]:
    """Batches of ``step`` records, with a loser's records after every second one. A batch is appended at the latest of
    its ``times``."""
    at, entries = Position(), []
    for number, low in enumerate(range(0, len(values), step)):
        part = list(values[low : low + step])
        appended = max(times[low : low + step], default=START)
        entries += [
            Entry(at.offset + i, appended, link, value)
            for i, (link, value) in enumerate(zip(links(at, len(part)), part, strict=True))
        ]
        at = Position(at.offset + len(part), batch_digest(at.digest, at.offset, part))
        if number % 2:
            stale = links(Position(at.offset - 1, at.digest), 2)
            entries += [Entry(at.offset + i, START, link, b"lost the race") for i, link in enumerate(stale)]
            at = Position(at.offset + 2, at.digest)
    return entries


def plain(values: Sequence[bytes]) -> list[Entry]:
    return [Entry(offset, START + offset, None, value) for offset, value in enumerate(values)]


def seal_all(topic: str, entries: Sequence[Entry], keys: LogKeys = KEYS, limit: int = 10) -> list[Sealed]:
    state, rest = begin("g1", topic, 0), list(entries)
    found: list[Sealed] = []
    while rest:
        made = seal(state, rest, START + 1000 * len(found), keys, limit)
        if made is None:
            break
        found.append(made)
        state, rest = made.state, rest[made.consumed :]
    found.append(heartbeat(state, START + 1000 * len(found), keys))
    return found


@dataclass
class Store:
    """What an auditor reads, open to tampering."""

    name: str = ORIGIN
    rows: list[list[Any]] = field(default_factory=list)
    manifests: list[tuple[object, ...]] = field(default_factory=list)
    sealed: list[Manifest] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def verify(self, *, newest: str | None = None, source: bool = False, replay: bool = False) -> Report:
        verifier = Verifier(Verifiers(KEYS.verifier_keys))
        verifier.origin(
            self.name,
            self.manifests,
            self.rows,
            newest=newest,
            source=self.entries if source else None,
            replay=Replay(RULES, 0, enumerate(DOCUMENTS)) if replay else None,
        )
        return verifier.report()


def stored(topic: str, entries: Sequence[Entry], keys: LogKeys = KEYS, limit: int = 10) -> Store:
    """The rows and manifests of a sealed log."""
    store = Store(name=f"g1/{topic}/0", entries=list(entries))
    for made in seal_all(topic, entries, keys, limit):
        store.rows += [list(row) for row in zip(*made.columns, strict=True)]
        store.manifests.append(made.row)
        store.sealed.append(made.manifest)
    return store


def decisions(records: Sequence[LogRecord] | None = None, keys: LogKeys = KEYS, limit: int = 10) -> Store:
    return stored("decisions", appended(records or history()), keys, limit)


def appended(records: Sequence[LogRecord]) -> list[Entry]:
    """The records as they lie in Kafka, each batch appended when its last record was made."""
    return chained([encode(record) for record in records], times=[time_of(record) for record in records])
