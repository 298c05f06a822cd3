"""ADMIT on a real broker: two writers, lost acknowledgements, take-over from a snapshot, one answer each."""

from __future__ import annotations

import asyncio
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewPartitions

from pipeline import cli
from pipeline.admit.ledger import Ledger
from pipeline.admit.partition import AdmitPartition
from pipeline.errors import Fatal
from pipeline.events.codec import decode
from pipeline.events.messages import Response, Work
from pipeline.events.records import Decision, LogRecord, Outcome, SnapshotMark
from pipeline.kafka.clients import make_admin
from tests.admit_site import Writers, history, read, report, until_answered
from tests.patience import STUCK_S, looks


def test_three_writers_answer_every_request_exactly_once(deployment: Any) -> None:
    async def scene() -> None:
        async with Writers(deployment) as writers:
            for _ in range(3):
                writers.start()
            names = [f"race-{n}" for n in range(300)]
            for at in range(0, 300, 20):
                await writers.produce("acme", names[at : at + 20], at + 1, session="race")
                await asyncio.sleep(0.02)
            records = await until_answered(deployment.bootstrap, 300)
            decided = [r for r in records if isinstance(r, Decision)]
            assert [d.facts.offset for d in decided] == list(range(300))
            assert [d.sequence for d in decided] == list(range(1, 301))
            assert {d.verdict for d in decided} == {"admit"}
            work = {decode(Work, item.value).request for item in await read(deployment.bootstrap, "work")}
            assert work == {d.request for d in decided}
            await report(deployment, writers.publisher, records)
            for _ in looks():
                records = await history(deployment.bootstrap)
                if sum(isinstance(r, Outcome) for r in records) == 300:
                    break
                await asyncio.sleep(0.1)
            outcomes = [r.request for r in records if isinstance(r, Outcome)]
            assert len(outcomes) == len(set(outcomes)) == 300
            ledgers = [w._history.ledger for w in writers.workers]
            for _ in looks():
                # each folds by itself: two folds of one history at a time would mix its records
                if len({ledger.digest() for ledger in ledgers}) == 1:
                    break
                await asyncio.sleep(0.1)
            assert len({ledger.digest() for ledger in ledgers}) == 1
            lost = len(await read(deployment.bootstrap, "decisions")) - len(await history(deployment.bootstrap))
            assert lost > 0, "the writers never met, so this showed nothing"

    asyncio.run(scene())


def test_a_free_tenant_gets_ten_and_the_rest_hears_when_to_come_back(deployment: Any) -> None:
    async def scene() -> None:
        before = sum(isinstance(r, Decision) for r in await history(deployment.bootstrap))
        async with Writers(deployment) as writers:
            writers.start()
            for n in range(14):
                await writers.produce("initech", [f"free-{n}"], n + 1, session="free")
                records = await until_answered(deployment.bootstrap, before + n + 1)
                await report(deployment, writers.publisher, records)
        mine = [r for r in records if isinstance(r, Decision)][before:]
        assert [d.verdict for d in mine] == ["admit"] * 10 + ["deny"] * 4
        assert {d.reasons for d in mine[10:]} == {("rate_limited",)}
        refusals = [decode(Response, i.value) for i in await read(deployment.bootstrap, "responses")]
        told = {r.client_request: r for r in refusals if r.event == "refusal"}
        assert all(0 < told[f"free-{n}"].retry_after_ms <= 60_000 for n in range(10, 14))

    asyncio.run(scene())


def test_a_replay_a_forgery_and_garbage_are_each_refused_and_recorded(deployment: Any) -> None:
    async def scene() -> None:
        before = sum(isinstance(r, Decision) for r in await history(deployment.bootstrap))
        value, headers = deployment.request("globex", "genuine", counter=1, session="bad")
        forged = [(n, b"tampered" if n == "sluice-request" else v) for n, v in headers]
        records = [
            ("requests", 0, b"o", value, headers),
            ("requests", 0, b"o", value, headers),
            ("requests", 0, b"o", value, forged),
            ("requests", 0, b"o", b"\xff{", [("x", b"y")]),
        ]
        async with Writers(deployment) as writers:
            writers.start()
            await writers.publisher.send_all(records)
            found = await until_answered(deployment.bootstrap, before + 4)
        mine = [r for r in found if isinstance(r, Decision)][before:]
        assert [d.reasons for d in mine] == [(), ("replayed",), ("unsigned",), ("malformed",)]
        assert [d.tenant for d in mine] == ["globex", "globex", "", ""]
        assert len(await read(deployment.bootstrap, "dead_letters")) == 1

    asyncio.run(scene())


def test_take_over_from_a_snapshot_gives_the_ledger_of_the_whole_log(deployment: Any) -> None:
    async def scene() -> None:
        before = sum(isinstance(r, Decision) for r in await history(deployment.bootstrap))
        async with Writers(deployment, snapshot_every=100) as writers:
            writers.start()
            for at in range(0, 240, 40):
                await writers.produce("acme", [f"snap-{n}" for n in range(at, at + 40)], at + 1, session="snap")
                await until_answered(deployment.bootstrap, before + at + 40)
        records = await history(deployment.bootstrap)
        assert sum(isinstance(r, SnapshotMark) for r in records) >= 2
        whole = Ledger()
        for record in records:
            whole.apply(record)
        async with Writers(deployment) as writers:
            taken: list[LogRecord] = []
            worker = AdmitPartition(writers.start()._context, 0)
            await worker._history.restore(taken.append)
            assert worker._history.ledger.digest() == whole.digest()
            assert len(taken) < len(records)
            await worker._history.close()

    asyncio.run(scene())


def test_a_writer_never_writes_over_the_newest_snapshot_of_another(deployment: Any) -> None:
    async def scene() -> None:
        before = await history(deployment.bootstrap)
        decided = sum(isinstance(r, Decision) for r in before)
        for turn in range(4):
            # a writer of its own each time, while the first one folds what they write
            async with Writers(deployment, snapshot_every=20) as writers:
                for _ in range(2):
                    writers.start()
                for at in range(0, 60, 20):
                    names = [f"slot-{turn}-{n}" for n in range(at, at + 20)]
                    await writers.produce("acme", names, at + 1, session=f"slot-{turn}")
                    decided += 20
                    await until_answered(deployment.bootstrap, decided)
        slots = [r.slot for r in await history(deployment.bootstrap) if isinstance(r, SnapshotMark)]
        assert len(slots) >= 6
        assert all(one != following for one, following in itertools.pairwise(slots))

    asyncio.run(scene())


def test_a_log_that_was_cut_below_what_was_folded_stops_the_partition(deployment: Any) -> None:
    async def scene() -> None:
        async with Writers(deployment) as writers:
            worker = writers.start()
            await asyncio.sleep(1)
            log = worker._history._log
            log._chain.at = type(log.position)(log.position.offset + 5, log.position.digest)
            with pytest.raises(Fatal, match="truncated"):
                await asyncio.wait_for(writers.tasks[0], STUCK_S)

    asyncio.run(scene())


@pytest.mark.parametrize("stage", ["admit", "gateway", "notify", "watch"])
def test_a_topic_of_another_width_stops_every_stage(
    deployment: Any, stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Last of this file: a topic cannot be narrowed again."""

    async def widen() -> None:
        admin = make_admin(deployment.kafka)
        await admin.start()
        try:
            if len((await admin.describe_topics(["work"]))[0]["partitions"]) == 1:
                await admin.create_partitions({"work": NewPartitions(2)})
        finally:
            await admin.close()

    asyncio.run(widen())
    file = tmp_path / "sluice.toml"
    file.write_text(f'[kafka]\nbootstrap = "{deployment.bootstrap}"\n[keys]\nhome = "{deployment.home}/keys"\n')
    level = logging.getLogger("aiokafka").level
    code = cli.main(["--config", str(file), "run", stage])
    logging.getLogger("aiokafka").setLevel(level)
    assert code == 2
    assert "work has 2 partitions, control pins 1" in capsys.readouterr().err
