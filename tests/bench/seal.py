"""SEAL in this process: from records as read to signed manifests and columns. The insert is a figure of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from pipeline.audit.checkpoint import LogKeys
from pipeline.events.chain import Entry, Position, batch_digest, links
from pipeline.events.codec import encode
from pipeline.events.records import Charge, Decision, Facts, Outcome
from pipeline.seal.batch import BATCH_RECORDS, begin, seal
from tests.bench.rows import Measurement

COUNT = 81_920
STEP = 512
START = 1_790_000_000_000


def measure() -> list[Measurement]:
    """Audited records per second of CPU."""
    rate, size = sealing(list(entries(COUNT)))
    load = f"{COUNT:,} decisions and outcomes of {size:,.0f} bytes written {STEP}, sealed {BATCH_RECORDS:,} at a time"
    return [
        Measurement(
            "seal", "records per CPU second, both signatures, without the insert", load, rate, "/s/core", 40_000
        )
    ]


def sealing(waiting: list[Entry]) -> tuple[float, float]:
    """Records per CPU second, and mean bytes of a record."""
    keys, state, done, at = LogKeys.generate("bench/log", os.urandom), begin("g1", "decisions", 0), 0, 0
    began = time.process_time()
    while at < len(waiting):
        sealed = seal(state, waiting[at : at + BATCH_RECORDS], START, keys)
        if sealed is None:
            break
        encode(sealed.manifest)
        state, at, done = sealed.state, at + sealed.consumed, done + sealed.manifest.rows
    spent = time.process_time() - began
    return done / spent, sum(len(entry.value) for entry in waiting) / len(waiting)


def entries(count: int) -> Iterator[Entry]:
    """A valid history: half decisions, half outcomes, as admit writes them for prompts whose text is not kept."""
    at, records = Position(), history(count)
    for _ in range(0, count, STEP):
        values = [encode(next(records)) for _ in range(STEP)]
        for index, (value, link) in enumerate(zip(values, links(at, STEP), strict=True)):
            yield Entry(at.offset + index, START, link, value)
        at = Position(at.offset + STEP, batch_digest(at.digest, at.offset, values))


def history(count: int) -> Iterator[Decision | Outcome]:
    """Decisions and outcomes by turns."""
    charges = (
        Charge("*|capacity|open|tokens", "open", "tokens", 380, 2**30, 60_000),
        Charge("t:acme|requests|rate|requests", "rate", "requests", 1, 6000, 60_000),
        Charge("t:acme|tokens-month|budget|tokens", "budget", "tokens", 380, 500_000_000, 2**31, 2**40, 2**40 + 2**31),
        Charge("t:acme|open|open|requests", "open", "requests", 1, 512, 60_000),
    )
    for index in range(count // 2):
        request, time_ms = f"g1a2b3c4-0-{index}", START + index
        facts = Facts(
            offset=index,
            time=time_ms,
            kind="inference",
            key="k0123456789ab",
            client_request=f"acme-app:{index:032x}",
            session="0123456789abcdef0123456789abcdef",
            counter=index + 1,
            sent=time_ms - 3,
            lane=0,
            model="glossary",
            max_tokens=64,
            input_bound=316,
            deadline=time_ms + 60_000,
            features=(0x9E3779B97F4A7C15 ^ index, *range(index, index + 10)),
            text_digest=index.to_bytes(32, "big"),
        )
        who = ("acme", "acme", "acme-app")
        yield Decision(request, facts, "admit", 12, 1, *who, 2 * index + 1, charges=charges)
        yield Outcome(request, time_ms + 900, "finished", *who, 2 * index + 2, index, "worker-1-1790000", "glossary")
