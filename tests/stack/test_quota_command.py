"""``sluice quota`` against a real broker: what is left, why it was refused, and the ledgers worked out again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline import cli
from pipeline.events.chain import ChainReader, Position, links
from pipeline.events.codec import decode_log, encode
from pipeline.events.records import Charge, Decision, LogRecord, Outcome, SnapshotMark
from pipeline.kafka.clients import make_admin
from tests.admit_site import Writers, history, read, report, until_answered
from tests.patience import looks
from tests.stack.test_decisions_log import forge

ASKED, LET_IN = 14, 10


@pytest.fixture(scope="module")
def decided(deployment: Any) -> list[Decision]:
    """Fourteen requests under the free plan, one after the other: ten a minute are let in, the rest is refused."""

    async def scene() -> list[Decision]:
        async with Writers(deployment, snapshot_every=8) as writers:
            writers.start()
            for n in range(ASKED):
                await writers.produce("initech", [f"initech-app:{n}"], n + 1, session="free", key="initech")
                records = await until_answered(deployment.bootstrap, n + 1)
                await report(deployment, writers.publisher, records)
            for _ in looks():
                records = await history(deployment.bootstrap)
                if sum(isinstance(record, Outcome) for record in records) == LET_IN:
                    break
                await asyncio.sleep(0.1)
        return [record for record in records if isinstance(record, Decision)]

    return asyncio.run(scene())


@pytest.fixture
def sluice(deployment: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command against the broker; give its exit code and what it printed."""
    monkeypatch.setenv("SLUICE_KAFKA__BOOTSTRAP", deployment.bootstrap)
    monkeypatch.setenv("SLUICE_KEYS__HOME", str(deployment.home / "keys"))

    def run(*words: str) -> tuple[int, Any]:
        capsys.readouterr()
        code = cli.main(["--home", str(deployment.home), *words])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if "--json" in words and code < 2 else printed.out + printed.err

    return run


def test_what_is_left_is_told_of_tenants_principals_and_keys(
    deployment: Any, decided: list[Decision], sluice: Any
) -> None:
    key = decided[0].facts.key
    for name in ("initech", "initech-app", key):
        code, rows = sluice("quota", "show", name, "--json")
        assert code == 0
        left = {row["id"]: row for row in rows}
        # a minute may be over by now, an hour is not
        assert [left[name]["remaining"] for name in ("hour", "day", "open")] == [40, 190, 4]
        assert (left["hour"]["level"], left["hour"]["meter"], left["hour"]["unit"]) == ("tenant", "window", "requests")
        assert (left["hour"]["limit"], left["hour"]["over"]) == (50, "initech")
        assert left["hour"]["as_of"] > decided[-1].facts.time
        assert decided[9].facts.time < left["hour"]["reset"] <= decided[9].facts.time + 3_600_000
    code, text = sluice("quota", "show", "initech")
    assert code == 0
    assert text.splitlines()[0].split("\t") == ["level", "over", "id", "meter", "unit", "limit", "remaining", "reset"]


def test_a_refusal_is_derived_again_with_what_the_limit_held(decided: list[Decision], sluice: Any) -> None:
    refused = decided[-1]
    code, told = sluice("quota", "explain", refused.request, "--json")
    assert code == 0
    assert (told["verdict"], told["reason"], told["limit"]) == ("deny", "rate_limited", "t:initech|minute")
    assert (told["derived"], told["derived_as"]) == ("same", "")
    [minute] = [limit for limit in told["limits"] if limit["refuses"]]
    assert minute == {
        "limit": "t:initech|minute",
        "meter": "window",
        "unit": "requests",
        "amount": 10,
        "held": 10,
        "asked": 1,
        "refuses": True,
    }
    assert (told["wait"], told["admitted_at"]) == ("until", decided[0].facts.time + 60_000)
    code, text = sluice("quota", "explain", refused.request)
    assert code == 0
    assert "deny: rate_limited" in text
    code, told = sluice("quota", "explain", decided[0].request, "--json")
    assert (code, told["verdict"], told["derived"], told["wait"]) == (0, "admit", "same", "none")
    assert {limit["held"] for limit in told["limits"]} == {0}


def test_the_ledgers_come_out_again(decided: list[Decision], sluice: Any) -> None:
    code, found = sluice("quota", "replay", "--json")
    assert (code, found["equal"]) == (0, True)
    [ledger] = found["partitions"]
    assert (ledger["start"], ledger["decisions"], ledger["faults_total"]) == (0, ASKED, 0)
    assert ledger["snapshots"] >= 2
    assert ledger["newest"] > 0
    assert ledger["charges"] > 5 * LET_IN
    code, text = sluice("quota", "replay")
    assert code == 0
    assert text.endswith("the ledgers are equal\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("show nobody", "expected the id of a tenant, principal or key, got 'nobody'"),
        ("show initech --as key", "expected the id of a key, got 'initech'"),
        ("explain nonsense", "expected a request id such as"),
        ("explain GENERATION-0-999", "has no decision in the log"),
        ("explain GENERATION-7-0", "expected a request id such as"),
    ],
)
def test_wrong_words_are_told(decided: list[Decision], sluice: Any, words: str, said: str) -> None:
    generation = decided[0].request.rsplit("-", 2)[0]
    code, text = sluice("quota", *words.replace("GENERATION", generation).split())
    assert code == 2
    assert said in text


def test_behind_a_cut_the_replay_begins_at_the_oldest_snapshot(
    deployment: Any, decided: list[Decision], sluice: Any
) -> None:
    async def cut(before: int) -> list[LogRecord]:
        admin = make_admin(deployment.kafka)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition("decisions", 0): RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()
        return (await rest(deployment.bootstrap))[0]

    # two snapshots are kept; what lies between them can still be explained
    begin = [r.position for r in asyncio.run(history(deployment.bootstrap)) if isinstance(r, SnapshotMark)][-2]
    kept = [record for record in asyncio.run(cut(begin)) if isinstance(record, Decision)]
    code, found = sluice("quota", "replay", "--json")
    assert (code, found["partitions"][0]["start"], found["partitions"][0]["snapshots"]) == (0, begin, 2)
    assert found["partitions"][0]["decisions"] == len(kept) > 0
    assert sluice("quota", "explain", kept[0].request)[0] == 0
    code, text = sluice("quota", "explain", decided[0].request)
    assert code == 2
    assert f"decisions[0] is kept from offset {begin} on" in text


async def rest(bootstrap: str) -> tuple[list[LogRecord], Position]:
    """Read the valid records of a log that may be cut, and the position behind them."""
    chain = ChainReader(trust_first=True)
    records = [decode_log(e.value) for item in await read(bootstrap, "decisions") for e in chain.push(item.entry())]
    return records, chain.at


def test_what_differs_is_found_and_told(deployment: Any, decided: list[Decision], sluice: Any) -> None:
    """A writer that reaches the broker goes on with the history, on wrong figures."""

    async def forged(record: Decision | SnapshotMark, offsets: int) -> None:
        _, position = await rest(deployment.bootstrap)
        [link] = links(position, 1, (position.source, position.source + offsets))
        await forge(deployment.kafka, encode(record), link)

    last = decided[-1]
    facts = msgspec.structs.replace(last.facts, offset=ASKED, counter=ASKED + 1, time=last.facts.time + 1)
    charge = Charge("t:initech|hour", "window", "requests", 1, 50, 3_600_000)
    wrong = msgspec.structs.replace(
        last,
        request=last.request.rpartition("-")[0] + f"-{ASKED}",
        facts=facts,
        sequence=last.sequence + 1,
        charges=(charge,),
    )
    asyncio.run(forged(wrong, 1))
    code, told = sluice("quota", "explain", wrong.request, "--json")
    assert (code, told["derived"], told["derived_as"]) == (1, "differs", "deny, rate_limited")
    code, text = sluice("quota", "explain", wrong.request)
    assert code == 1
    assert "DIFFERS" in text
    code, text = sluice("quota", "replay")
    assert code == 1
    assert "the decision is not what the rules give for its facts" in text
    assert text.endswith("1 faults: the ledgers differ\n")
    asyncio.run(forged(SnapshotMark(facts.time, 99, b"\x00" * 32, 0, 1), 0))
    code, found = sluice("quota", "replay", "--json")
    assert (code, found["equal"], found["partitions"][0]["faults_total"]) == (1, False, 3)
