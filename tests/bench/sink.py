"""The ClickHouse sink: sealed batches into the embedded store, each guarded, deduplicated and read back."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from pipeline.audit.checkpoint import LogKeys
from pipeline.clickhouse.store import ClickHouseStore
from pipeline.embedded.store import EmbeddedStore, StoreSettings
from pipeline.embedded.supervisor import Supervisor, free_port
from pipeline.endpoints import ClickHouseEndpoint
from pipeline.seal.batch import BATCH_RECORDS, Sealed, begin, seal
from pipeline.tables import MANIFESTS, RECORDS
from tests.bench.rows import Measurement
from tests.bench.seal import START, entries
from tests.bench.site import cpu_seconds

COUNT = 131_072


def measure() -> list[Measurement]:
    """Rows per second of wall time, and what the CPU of both sides was."""
    batches = sealed_batches()
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        supervisor = Supervisor()
        store = EmbeddedStore(StoreSettings(Path(folder) / "store", free_port(), "bench-password"), supervisor)
        store.start()
        try:
            client = ClickHouseStore(ClickHouseEndpoint(store.url, "sluice", "bench-password"))
            client.connect()
            client.apply_migrations()
            insert(client, batches[0])
            return _timed(client, store.pid, batches[1:])
        finally:
            supervisor.stop_all()


def sealed_batches() -> list[Sealed]:
    keys, state, waiting = LogKeys.generate("bench/log", os.urandom), begin("g1", "decisions", 0), list(entries(COUNT))
    found, at = list[Sealed](), 0
    while (made := seal(state, waiting[at : at + BATCH_RECORDS], START, keys)) is not None:
        found.append(made)
        state, at = made.state, at + made.consumed
    return found


def insert(client: ClickHouseStore, made: Sealed) -> int:
    """One batch as SEAL inserts it: its rows, then its manifest."""
    client.insert_batch([(RECORDS, made.columns), (MANIFESTS, [[value] for value in made.row])], made.token)
    return made.manifest.rows


def _timed(client: ClickHouseStore, store: int, batches: list[Sealed]) -> list[Measurement]:
    wall, ours, theirs = time.monotonic(), time.process_time(), cpu_seconds(store)
    rows = sum(insert(client, made) for made in batches)
    wall, ours = time.monotonic() - wall, time.process_time() - ours
    theirs = cpu_seconds(store) - theirs
    load = f"{rows:,} rows in batches of {BATCH_RECORDS:,} with manifests, one writer, fsync on"
    return [
        Measurement("sink", "rows per second into the embedded store (wall)", load, rows / wall, "rows/s", 40_000),
        Measurement("sink", "CPU of the sealer's side", load, ours / rows * 1e6, "us/row"),
        Measurement("sink", "CPU of the store", load, theirs / rows * 1e6, "us/row"),
    ]
