"""Admit workers of one process on partition 0 of a real broker, and what the topics hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from detectors.base import Screened, Transcript
from pipeline.admit.completions import Tickets
from pipeline.admit.partition import AdmitContext, AdmitPartition
from pipeline.control.table import ControlTable
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import ChainReader, Entry
from pipeline.events.codec import decode_log, encode
from pipeline.events.messages import Completion
from pipeline.events.records import Decision, LogRecord, Outcome
from pipeline.kafka.committed import CommittedOffsets
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader
from pipeline.kafka.writer import Publisher
from pipeline.keys.vault import Vault
from pipeline.metrics import ADMIT, Meters
from tests.patience import looks
from tests.tickets import ticketed


async def no_findings(texts: Sequence[Transcript]) -> list[Screened]:
    return [Screened() for _ in texts]


class Writers:
    """Admit workers on partition 0, all in this process and none aware of the others."""

    def __init__(self, deployment: Any, snapshot_every: int = 20_000) -> None:
        self.deployment, self.snapshot_every = deployment, snapshot_every
        self.tasks: list[asyncio.Task[None]] = []
        self.stop = asyncio.Event()
        self.publisher = Publisher(deployment.kafka)
        self.offsets = Offsets(deployment.kafka)
        self.control_table = ControlTable(deployment.kafka, deployment.pin)
        self.marks = CommittedOffsets(deployment.kafka, "sluice-admit", "requests")
        self.workers: list[AdmitPartition] = []
        self.metrics = Meters(ADMIT)

    async def __aenter__(self) -> Writers:
        await self.control_table.start()
        await self.marks.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.publisher.close()
        await self.offsets.close()
        await self.marks.close()
        await self.control_table.close()

    def start(self) -> AdmitPartition:
        context = AdmitContext(
            self.deployment.kafka,
            self.control_table,
            Vault(self.deployment.keyring, self.control_table.control),
            no_findings,
            self.publisher,
            self.offsets,
            self.marks,
            self.snapshot_every,
            count=self.metrics.count,
        )
        worker = AdmitPartition(context, 0)
        self.workers.append(worker)
        self.tasks.append(asyncio.create_task(worker.run(self.stop)))
        return worker

    async def produce(self, tenant: str, names: list[str], first: int, **fields: object) -> None:
        records = []
        for index, name in enumerate(names):
            value, headers = self.deployment.request(tenant, name, counter=first + index, **fields)
            records.append(("requests", 0, b"o", value, headers))
        await self.publisher.send_all(records)


async def read(bootstrap: str, topic: str) -> list[Any]:
    reader = PartitionReader(KafkaEndpoint(bootstrap), topic, 0)
    await reader.start(await reader.begin())
    items = await reader.read_to_end()
    await reader.close()
    return items


async def valid(bootstrap: str) -> list[Entry]:
    """The valid records of the log as they lie in it."""
    chain = ChainReader()
    return [entry for item in await read(bootstrap, "decisions") for entry in chain.push(item.entry())]


async def history(bootstrap: str) -> list[LogRecord]:
    return [decode_log(entry.value) for entry in await valid(bootstrap)]


async def chain_of(bootstrap: str) -> ChainReader:
    chain = ChainReader()
    for item in await read(bootstrap, "decisions"):
        chain.push(item.entry())
    return chain


async def until_answered(bootstrap: str, count: int) -> list[LogRecord]:
    for _ in looks():
        records = await history(bootstrap)
        if sum(isinstance(r, Decision) for r in records) >= count:
            return records
        await asyncio.sleep(0.1)
    raise AssertionError(f"{sum(isinstance(r, Decision) for r in records)} of {count} requests were decided")


async def report(deployment: Any, publisher: Publisher, records: Sequence[LogRecord]) -> int:
    """Completions for every admitted request without an outcome; gives their number."""
    done = {r.request for r in records if isinstance(r, Outcome)}
    waiting = [r for r in records if isinstance(r, Decision) and r.verdict == "admit" and r.request not in done]
    reports = [completion(deployment, decision) for decision in waiting]
    await publisher.send_all([("completions", 0, b"o", encode(c), ()) for c in reports])
    return len(reports)


def completion(deployment: Any, decision: Decision, **fields: Any) -> Completion:
    """What a worker that was given the request reports."""
    made = Completion(
        decision.request, decision.organisation, decision.tenant, "finished", "w", "a1", "echo", "stop", 5, 7
    )
    return msgspec.structs.replace(ticketed(made, Tickets(deployment.vault.ticket_keys())), **fields)
