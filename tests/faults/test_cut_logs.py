"""Topics that were truncated for real, by losing all they held: whoever knew more stops, and says what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError

from pipeline.endpoints import KafkaEndpoint
from pipeline.errors import Fatal
from pipeline.events.ids import GRACE_MS
from pipeline.events.records import Decision, Outcome
from pipeline.kafka.clients import make_admin
from pipeline.kafka.offsets import Offsets
from pipeline.keys.files import create_log_keys
from pipeline.seal.partition import SealContext, SealPartition
from pipeline.seal.signer import LogSigner
from pipeline.tables import RECORDS, Table
from pipeline.topics import BY_NAME
from tests.admit_site import Writers, history, report, until_answered
from tests.patience import STUCK_S, looks


class Taken:
    """A store that takes every row and keeps a count."""

    rows = 0

    def insert_batch(self, parts: list[tuple[Table, tuple[list[object], ...]]], token: str) -> None:
        self.rows += sum(len(columns[0]) for table, columns in parts if table is RECORDS and columns)


async def lose(bootstrap: str, name: str) -> None:
    """The topic as after an unclean election that cost everything: there, and empty."""
    admin = make_admin(KafkaEndpoint(bootstrap))
    await admin.start()
    try:
        await admin.delete_topics([name])
        for _ in looks():
            made = await admin.create_topics([NewTopic(name, 1, 1, topic_configs=BY_NAME[name].config(1))])
            if made.topic_errors[0][1] == 0:
                return
            await asyncio.sleep(0.1)
    except KafkaError as error:
        raise AssertionError(f"{name} was not made again: {error!r}") from error
    finally:
        await admin.close()


def sealing(deployment: Any, home: Path, store: Taken, offsets: Offsets) -> asyncio.Task[None]:
    control = deployment.control_table.control
    signer = LogSigner(home / "log-key.json", control)
    context = SealContext(deployment.kafka, control.generation, signer, store, offsets, 4096, 50)  # type: ignore[arg-type]
    return asyncio.create_task(SealPartition(context, 0).run(asyncio.Event()))


def test_a_completion_that_lies_there_counts_however_late_admit_reads_it(deployment: Any) -> None:
    async def scene() -> None:
        async with Writers(deployment) as writers:
            writers.start()
            await writers.produce("acme", [f"late-{n}" for n in range(50)], 1, session="late", timeout_ms=2_000)
            records = await until_answered(deployment.bootstrap, 50)
        async with Writers(deployment) as writers:
            await report(deployment, writers.publisher, records)
            await asyncio.sleep((2_000 + GRACE_MS) / 1000 + 0.5)
            writers.start()
            for _ in looks():
                ends = [r.result for r in await history(deployment.bootstrap) if isinstance(r, Outcome)]
                if len(ends) == 50:
                    break
                await asyncio.sleep(0.1)
            assert ends == ["finished"] * 50

    asyncio.run(scene())


def test_admit_and_seal_stop_where_decisions_lost_what_they_knew(deployment: Any, tmp_path: Path) -> None:
    async def scene() -> None:
        store, offsets = Taken(), Offsets(deployment.kafka)
        create_log_keys(tmp_path / "log-key.json", "sluice")
        async with Writers(deployment) as writers:
            writers.start()
            before = sum(isinstance(r, Decision) for r in await history(deployment.bootstrap))
            await writers.produce("acme", ["cut-1", "cut-2"], 1, session="cut")
            await until_answered(deployment.bootstrap, before + 2)
            sealed = sealing(deployment, tmp_path, store, offsets)
            for _ in looks():
                if store.rows:
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            await lose(deployment.bootstrap, "decisions")
            with pytest.raises(Fatal, match=r"decisions\[0\] ends at 0, but was folded up to"):
                await asyncio.wait_for(writers.tasks[0], STUCK_S)
            # nothing waits at the sealer, which must not take a broken source for a quiet one
            with pytest.raises(Fatal, match=r"decisions\[0\] holds 0 to 0, but \d+ comes next"):
                await asyncio.wait_for(sealed, STUCK_S)
        with pytest.raises(Fatal, match=r"decisions\[0\] ends at 0, below \d+"):
            await asyncio.wait_for(sealing(deployment, tmp_path, store, offsets), STUCK_S)
        await offsets.close()

    asyncio.run(scene())
