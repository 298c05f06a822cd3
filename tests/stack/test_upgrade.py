"""A log that version 0.1.0 began is taken over on a real broker, lifted once, and derived by the rules of its time."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.admit.decider6.ledger import Ledger6
from pipeline.admit.rules import RULES
from pipeline.audit.replay import Replay
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import HEADER, ChainReader, links
from pipeline.events.codec import decode_log, encode
from pipeline.events.records import ControlMark, Decision, Facts, LogRecord, SnapshotMark, Upgrade
from pipeline.kafka.clients import make_producer
from pipeline.kafka.reader import PartitionReader
from tests.admit_site import Writers, chain_of, until_answered, valid


async def as_version_0_1_0(kafka: KafkaEndpoint, writers: Writers, now: int = 2_000) -> list[bytes]:
    """Write the beginning of a log as decider 6 did: links of version 1, and no number of a decider."""
    rules, ledger = RULES[0], Ledger6()
    control = writers.control_table.control
    records: list[LogRecord] = [ControlMark(ledger.time, control.version)]
    ledger.apply(records[0])
    key = next(iter(control.keys))
    for offset in range(3):
        facts = Facts(
            offset, now + offset, "inference", key=key, client_request=f"old-{offset}", session="old",
            counter=offset + 1, model="glossary", max_tokens=4, input_bound=9, deadline=now + 38_000,
        )  # fmt: skip
        records.append(rules.decide(ledger, control, 0, facts))
        ledger.apply(records[-1])
    records.append(SnapshotMark(ledger.time, 4, ledger.digest(), 0, 1))
    producer = make_producer(kafka)
    await producer.start()
    try:
        chain = ChainReader()
        for record in records:
            value = encode(record)
            headers = [(HEADER, links(chain.at, 1)[0])]
            await producer.send_and_wait("decisions", value, key=b"", partition=0, headers=headers)
            chain.advance([value])
    finally:
        await producer.stop()
    return [encode(record) for record in records]


def test_a_log_of_the_build_before_is_lifted_once_and_derived_by_the_rules_of_its_time(deployment: Any) -> None:
    async def scene() -> None:
        bootstrap = deployment.bootstrap
        async with Writers(deployment) as writers:
            await writers.produce("acme", ["x", "y", "z", "new"], 1, session="now")
            old = await as_version_0_1_0(deployment.kafka, writers)
            for _ in range(2):
                writers.start()
            records = await until_answered(bootstrap, 4)
            control = [(i.offset, i.value) for i in await read_control(deployment)]
            entries = (await valid(bootstrap))[: len(records)]
        assert records[: len(old)] == [decode_log(stored) for stored in old]
        marks = [n for n, record in enumerate(records) if isinstance(record, Upgrade)]
        assert marks == [len(old)], "one mark, behind what the old build wrote"
        assert [r.decider for r in records if isinstance(r, Decision)] == [6, 6, 6, 7]
        replay = Replay(RULES, 0, control, pin=deployment.pin)
        assert [entry.value for entry in entries[: len(old)]] == old
        pushed = zip(records, entries, strict=True)
        assert [fault for record, e in pushed for fault in replay.push(record, e.value, e.time)] == []
        assert replay.derived == 4
        chain = await chain_of(bootstrap)
        assert chain.at.source == 4

    asyncio.run(scene())


async def read_control(deployment: Any) -> list[Any]:
    reader = PartitionReader(deployment.kafka, "control", 0)
    await reader.start(await reader.begin())
    found = await reader.read_to_end()
    await reader.close()
    return found
