"""A copying account on the plan ``free``, on a real broker: step by step to its refusal, and through kills of admit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pytest

from detectors.accounts.response import QUIET_MS, STEPS
from pipeline import wiring
from pipeline.admit.decide import decide
from pipeline.admit.ledger import Ledger
from pipeline.config import Keys, Settings
from pipeline.control.table import ControlTable
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Response, Work
from pipeline.events.reasons import REASONS
from pipeline.events.records import Decision, SnapshotMark
from pipeline.sections import Kafka
from tests.admit_site import history, read
from tests.deployment_site import Deployment
from tests.stack.account_play import ROUND_MS, ROUNDS, Play, tell_time

PLAY_MS = (ROUNDS + 2) * ROUND_MS
KILLED = (2, 6, 9, 13, 16, 20)
"""Within every step, before and after it went up."""
Told = tuple[list[Decision], list[Response], list[Work]]


async def _furnish(made: Deployment) -> None:
    await tell_time(made.bootstrap)
    settings = Settings(kafka=Kafka(bootstrap=made.bootstrap), keys=Keys(home=made.home / "keys"))
    async with wiring.registry(settings) as hand:
        await hand.add_tenant("hooli", "free")
        free = hand.control.plans["free"]
        assert free.extraction == "observe"
        await hand.apply_policies([free.model_copy(update={"extraction": "block"})])
        for tenant in ("initech", "hooli"):
            assert await hand.calibrate(tenant, accepted=True) > 0
            for who in ("eve", "bob"):
                made.keys[f"{tenant}-{who}"] = await hand.add_key(tenant, f"{tenant}-{who}")
    made.control_table = ControlTable(made.kafka, made.pin)
    await made.control_table.start()
    await made.control_table.close()


@pytest.fixture(scope="module")
def told(deployment: Deployment) -> Told:
    """What became of a play without any fault."""

    async def scene() -> Told:
        await _furnish(deployment)
        async with Play(deployment, "initech", int(time.time() * 1000) - 2 * PLAY_MS) as play:
            decisions = await play.play()
            work = [decode(Work, item.value) for item in await read(deployment.bootstrap, "work")]
            return decisions, await play.refusals(), work

    return asyncio.run(scene())


def of(decisions: Sequence[Decision], who: str) -> list[Decision]:
    return [d for d in decisions if d.principal.endswith(who)]


def shape(decisions: Sequence[Decision]) -> list[tuple[Any, ...]]:
    """All of the decisions that does not name the play."""
    return [
        (d.principal.rpartition("-")[2], d.verdict, d.reasons, d.step, d.score, d.findings, d.signatures, d.limit,
         d.retry_after_ms, d.sequence) for d in decisions
    ]  # fmt: skip


def test_a_copying_account_is_observed_throttled_concealed_reviewed_and_blocked(told: Told) -> None:
    eve = of(told[0], "eve")
    assert [step for step, _ in groupby(d.step for d in eve)] == list(STEPS)
    assert {(d.step == "block", d.verdict, d.reasons) for d in eve} == {
        (False, "admit", ()),
        (True, "deny", ("extraction",)),
    }
    assert [f.rule.partition(".")[0] for d in eve for f in d.findings] == ["extraction"] * (len(STEPS) - 1)


def test_its_refusal_is_the_documented_one(told: Told) -> None:
    denied = {d.facts.client_request: d for d in told[0] if d.verdict == "deny"}
    refusals = {r.client_request: r for r in told[1]}
    assert refusals.keys() == denied.keys() != set()
    for name, refusal in refusals.items():
        assert (refusal.reason, refusal.limit) == ("extraction", "")
        assert 0 < refusal.retry_after_ms == denied[name].retry_after_ms <= QUIET_MS
    assert REASONS["extraction"].status == 403


def test_from_concealing_on_the_worker_is_told_so(told: Told) -> None:
    work = {w.request: w for w in told[2]}
    admitted = [d for d in of(told[0], "eve") if d.verdict == "admit"]
    assert {(d.step, work[d.request].degrade) for d in admitted} == {
        ("observe", False),
        ("throttle", False),
        ("conceal", True),
        ("review", True),
    }


def test_others_of_the_tenant_are_served_as_ever(told: Told) -> None:
    bob = of(told[0], "bob")
    assert len(bob) == ROUNDS
    assert {(d.verdict, d.step, d.findings, d.shadowed) for d in bob} == {("admit", "observe", (), "")}


def test_the_standing_outlives_kills_of_admit(deployment: Deployment, told: Told) -> None:
    """The same requests, and a process that is killed again and again: decisions are those of the play without."""

    async def scene() -> list[Decision]:
        async with Play(deployment, "hooli", int(time.time() * 1000) - PLAY_MS) as play:
            return await play.play(KILLED)

    decisions = asyncio.run(scene())
    assert shape(decisions) == shape(told[0])
    folded, log = Ledger(), asyncio.run(history(deployment.bootstrap))
    assert any(isinstance(record, SnapshotMark) for record in log)
    for record in log:
        if isinstance(record, Decision):
            assert encode(decide(folded, deployment.control_table.control, 0, record.facts)) == encode(record)
        folded.apply(record)
    mine, theirs = (folded.accounts.status(f"{tenant}-eve") for tenant in ("initech", "hooli"))
    assert mine.response.step == theirs.response.step == "block"
    assert mine.traffic.totals == theirs.traffic.totals
