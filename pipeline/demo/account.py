"""The account: counts from Kafka's own log on one side, from ClickHouse on the other. They must be equal."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any, NamedTuple

from pipeline import wiring
from pipeline.config import Settings
from pipeline.control.table import ControlTable
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
    """What Kafka holds: requests, valid records by kind, admitted inference, and the records of sealed topics."""
    found: Counter[str] = Counter()
    feed = ControlTable(settings.kafka.bootstrap)
    await feed.start()
    await feed.close()
    found["control"] = feed.control.version + 1
    for partition in range(feed.control.require_deployment().partitions):
        found["requests"] += len(await read_all(settings, "requests", partition))
        for topic in ("alerts", "access", "deliveries"):
            found[topic] += len(await read_all(settings, topic, partition))
        chain = ChainReader()
        for item in await read_all(settings, "decisions", partition):
            for entry in chain.push(item.entry()):
                record = decode_log(entry.value)
                found["valid"] += 1
                found["decisions"] += isinstance(record, Decision)
                found["outcomes"] += isinstance(record, Outcome)
                if isinstance(record, Decision):
                    found["admitted"] += record.verdict == "admit" and record.facts.kind == "inference"
    return found


async def read_all(settings: Settings, topic: str, partition: int) -> list[KafkaRecord]:
    """Every record that a partition holds now."""
    reader = PartitionReader(settings.kafka.bootstrap, topic, partition)
    try:
        await reader.start(await reader.begin())
        return await reader.read_to_end()
    finally:
        await reader.close()


def count_store(settings: Settings) -> Counter[str]:
    """What ClickHouse holds, by kind, and what the manifests say was sealed."""
    with wiring.store(settings) as store:
        rows = store.query("SELECT kind, count() FROM records GROUP BY kind")
        sealed = store.query("SELECT sum(rows), count() FROM manifests")
        twice = store.query("SELECT count() FROM (SELECT origin, leaf FROM records GROUP BY ALL HAVING count() > 1)")
        found = Counter({f"kind {kind}": int(count) for kind, count in rows})
        found["rows"] = sum(found.values())
        found["sealed"] = int(sealed[0][0])
        found["twice"] = int(twice[0][0])
        return found


def equations(log: Counter[str], store: Counter[str]) -> list[Equation]:
    """Requests = decisions = rows; admitted = outcomes = rows; sealed rows = ClickHouse rows; none twice."""
    total = log["valid"] + log["alerts"] + log["access"] + log["deliveries"] + log["control"]
    return [
        Equation("requests = decisions", log["requests"], log["decisions"]),
        Equation("decisions = rows of decisions", log["decisions"], store["kind decision"]),
        Equation("admitted = outcomes", log["admitted"], log["outcomes"]),
        Equation("outcomes = rows of outcomes", log["outcomes"], store["kind outcome"]),
        Equation("records to seal = sealed rows", total, store["sealed"]),
        Equation("sealed rows = ClickHouse rows", store["sealed"], store["rows"]),
        Equation("rows that occur twice = 0", store["twice"], 0),
    ]


def reconcile(settings: Settings, patience_s: float = _SETTLE_S) -> list[Equation]:
    """The equations once they hold, or as they are when patience is over."""
    began = time.monotonic()
    while True:
        # the store first: the log only grows, so an equation cannot hold by being read too early
        stored = count_store(settings)
        lines = equations(asyncio.run(count_log(settings)), stored)
        if all(line.holds for line in lines) or time.monotonic() - began > patience_s:
            return lines
        time.sleep(0.5)


def per_tenant(settings: Settings, since: int) -> list[tuple[Any, ...]]:
    """Figures of each tenant since a time (Unix ms), in the order of ``COLUMNS``."""
    sql = """
        SELECT tenant,
            countIf(kind = 'decision') AS requests,
            countIf(kind = 'decision' AND verdict = 'admit') AS admitted,
            sumIf(reserved_tokens, kind = 'decision') AS reserved,
            sumIf(input_tokens + output_tokens, kind = 'outcome') AS settled,
            sumIf(length(rules), kind IN ('decision', 'outcome')) AS findings,
            toUInt64(ifNotFinite(round(quantileIf(0.5)(latency_ms, kind = 'outcome')), 0)) AS p50,
            toUInt64(ifNotFinite(round(quantileIf(0.99)(latency_ms, kind = 'outcome')), 0)) AS p99
        FROM records
        WHERE time >= fromUnixTimestamp64Milli({since:Int64}) AND kind IN ('decision', 'outcome')
        GROUP BY tenant ORDER BY tenant
    """
    why = """
        SELECT tenant, reason, count() AS times FROM records
        WHERE time >= fromUnixTimestamp64Milli({since:Int64}) AND kind = 'decision' AND verdict = 'deny'
        GROUP BY tenant, reason ORDER BY times DESC, reason
    """
    with wiring.store(settings) as store:
        denied: dict[str, list[str]] = {}
        for tenant, reason, times in store.query(why, {"since": since}):
            denied.setdefault(tenant, []).append(f"{reason} {times}")
        rows = store.query(sql, {"since": since})
        return [(*row[:3], ", ".join(denied.get(row[0], ["-"])), *row[3:]) for row in rows]


def alerts_since(settings: Settings, since: int) -> list[tuple[str, int]]:
    """Rule and time (Unix ms) of every sealed alert from a time on."""
    sql = """
        SELECT rules[1], toInt64(toUnixTimestamp64Milli(time)) FROM records
        WHERE kind = 'alert' AND time >= fromUnixTimestamp64Milli({since:Int64})
    """
    with wiring.store(settings) as store:
        return [(str(rule), int(time)) for rule, time in store.query(sql, {"since": since})]
