"""The reconciliation: counts from Kafka's own log on one side, from ClickHouse on the other. They must be equal."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import NamedTuple

from pipeline import wiring
from pipeline.config import Settings
from pipeline.control.connect import control_table
from pipeline.events.chain import ChainReader
from pipeline.events.codec import decode_log
from pipeline.events.records import Decision, Outcome
from pipeline.kafka.reader import KafkaRecord, PartitionReader

_SETTLE_S = 90.0


class Equation(NamedTuple):
    """One equation of the reconciliation."""

    name: str
    left: int
    right: int

    @property
    def holds(self) -> bool:
        return self.left == self.right


async def count_log(settings: Settings) -> Counter[str]:
    """Count Kafka's records: requests, valid records by kind, admitted inference, and the records of sealed topics."""
    counts: Counter[str] = Counter()
    async with control_table(settings) as table:
        control = table.control
    counts["control"] = control.version + 1
    for partition in range(control.require_deployment().partitions):
        counts["requests"] += len(await read_all(settings, "requests", partition))
        for topic in ("alerts", "access", "deliveries"):
            counts[topic] += len(await read_all(settings, topic, partition))
        items = await read_all(settings, "decisions", partition)
        # of a log that was cut, what came before is taken as given
        chain = ChainReader(trust_first=bool(items and items[0].offset))
        for item in items:
            for entry in chain.push(item.entry()):
                record = decode_log(entry.value)
                counts["valid"] += 1
                counts["outcomes"] += isinstance(record, Outcome)
                if isinstance(record, Decision):
                    counts["decisions"] += 1
                    # records of strangers are answered together
                    counts["answered"] += record.facts.offset + 1 - record.facts.start
                    counts["admitted"] += record.verdict == "admit" and record.facts.kind == "inference"
    return counts


async def read_all(settings: Settings, topic: str, partition: int) -> list[KafkaRecord]:
    """Read every record that a partition holds now."""
    reader = PartitionReader(settings.kafka.endpoint, topic, partition)
    try:
        await reader.start(await reader.begin())
        return await reader.read_to_end()
    finally:
        await reader.close()


def count_store(settings: Settings) -> Counter[str]:
    """Count ClickHouse's rows by kind, and the rows that the manifests say were sealed."""
    with wiring.store(settings) as store:
        rows = store.query("SELECT kind, count() FROM records GROUP BY kind")
        sealed = store.query("SELECT sum(rows), count() FROM manifests")
        twice = store.query("SELECT count() FROM (SELECT origin, leaf FROM records GROUP BY ALL HAVING count() > 1)")
        counts = Counter({f"kind {kind}": int(count) for kind, count in rows})
        counts["rows"] = sum(counts.values())
        counts["sealed"] = int(sealed[0][0])
        counts["twice"] = int(twice[0][0])
        return counts


def equations(log: Counter[str], store: Counter[str]) -> list[Equation]:
    """Requests = decisions = rows; admitted = outcomes = rows; sealed rows = ClickHouse rows; none twice."""
    total = log["valid"] + log["alerts"] + log["access"] + log["deliveries"] + log["control"]
    return [
        Equation("requests = decisions", log["requests"], log["answered"]),
        Equation("decisions = rows of decisions", log["decisions"], store["kind decision"]),
        Equation("admitted = outcomes", log["admitted"], log["outcomes"]),
        Equation("outcomes = rows of outcomes", log["outcomes"], store["kind outcome"]),
        Equation("records to seal = sealed rows", total, store["sealed"]),
        Equation("sealed rows = ClickHouse rows", store["sealed"], store["rows"]),
        Equation("rows that occur twice = 0", store["twice"], 0),
    ]


def reconcile(settings: Settings, patience_s: float = _SETTLE_S) -> list[Equation]:
    """Compare until every equation holds, or patience is over."""
    began = time.monotonic()
    while True:
        # the store first: the log only grows, so an equation cannot hold by being read too early
        stored = count_store(settings)
        lines = equations(asyncio.run(count_log(settings)), stored)
        if all(line.holds for line in lines) or time.monotonic() - began > patience_s:
            return lines
        time.sleep(0.5)
