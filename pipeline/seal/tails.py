"""The last manifests of each origin of one partition, read back from the end of ``audit``."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition

from pipeline.audit.rows import SEALED, origin_name
from pipeline.endpoints import KafkaEndpoint
from pipeline.events.chain import ChainReader, Position
from pipeline.events.codec import decode
from pipeline.events.messages import Manifest
from pipeline.kafka.offsets import Offsets
from pipeline.kafka.reader import PartitionReader

_WINDOW = 512
"""Manifests read back first to find the last ones of each origin; eight times more until all are found."""
Tails = Mapping[str, list[Manifest]]


def sealed_in(partition: int) -> list[str]:
    """Name the topics whose origins are sealed in this partition of ``audit``."""
    return [topic for topic in SEALED if topic != "control" or partition == 0]


async def read_tails(kafka: KafkaEndpoint, offsets: Offsets, generation: str, partition: int) -> tuple[Position, Tails]:
    """Give the end of ``audit`` and the last two manifests of each origin."""
    audit = TopicPartition("audit", partition)
    begins, end = await offsets.begin(audit), await offsets.end(audit)
    window = _WINDOW
    while True:
        start = max(begins, end - window)
        position, tails = await _read_back(kafka, offsets, partition, start)
        if start == begins or _complete(generation, partition, tails):
            return position, tails
        window *= 8


def _complete(generation: str, partition: int, tails: Tails) -> bool:
    """Every origin's tail is there; one that never had a record is only known from the whole log."""
    for topic in sealed_in(partition):
        tail = tails.get(origin_name(generation, topic, partition), [])
        if not tail or (len(tail) < 2 and tail[0].index):
            return False
    return True


async def _read_back(kafka: KafkaEndpoint, offsets: Offsets, partition: int, start: int) -> tuple[Position, Tails]:
    reader = PartitionReader(kafka, "audit", partition, offsets)
    chain = ChainReader(Position(start) if start else None, trust_first=start > 0)
    tails: dict[str, list[Manifest]] = {}
    try:
        await reader.start(start)
        for item in await reader.read_to_end():
            for entry in chain.push(item.entry()):
                manifest = decode(Manifest, entry.value)
                tails[manifest.origin] = [*tails.get(manifest.origin, [])[-1:], manifest]
    finally:
        await reader.close()
    return chain.at, tails
