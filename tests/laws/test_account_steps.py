"""An account that copies the model is answered step by step, and comes back down; one that only works hard is not.

Whole histories through the stage and what follows from each record, on a clock of their own.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from detectors.accounts.response import HOLD_MS, QUIET_MS
from pipeline.admit import emissions as dispatch
from pipeline.admit.decide import decide
from pipeline.admit.ledger import Ledger
from pipeline.events.codec import decode, decode_log, encode
from pipeline.events.messages import FindingEvent
from pipeline.events.records import Decision
from pipeline.topics import partition_of
from pipeline.watch import correlate as watch
from tests.laws.account_partition import GAP, MINUTE, START, Partition, harvest, steps, work_hard


@pytest.fixture(scope="module")
def played() -> Partition:
    """Eve harvests for most of an hour, a request every two seconds, while Bob asks twice as much of many kinds."""
    partition = Partition()
    for number in range(1_500):
        partition.ask("eve", harvest(number), START + number * GAP)
        for part in range(2):
            partition.ask("bob", work_hard(number * 2 + part), START + number * GAP + part * 1_000)
    return partition


def test_a_campaign_is_alerted_throttled_concealed_reviewed_and_blocked(played: Partition) -> None:
    decisions = played.decided["eve"]
    assert steps(decisions) == ["observe", "throttle", "conceal", "review", "block"]
    rises = [d for d in decisions if d.findings]
    assert [d.step for d in rises] == ["throttle", "conceal", "review", "block"]
    assert all(b.facts.time - a.facts.time >= HOLD_MS for a, b in pairwise(rises))
    assert decisions.index(rises[0]) < 50
    reasons = {step: Counter(d.reasons for d in decisions if d.step == step) for step in steps(decisions)}
    assert reasons["observe"].keys() == {()}
    assert reasons["block"].keys() == {("extraction",)}
    for step, most in (("throttle", 15), ("conceal", 15), ("review", 6)):
        assert reasons[step].keys() == {(), ("throttled",)}
        minutes = Counter(d.facts.time // MINUTE for d in decisions if d.step == step and d.verdict == "admit")
        assert max(minutes.values()) <= most + -(-most // 4)
    alerts = watch.replay(played.events)
    assert {(a.rule, a.tenant) for a in alerts} == {("extraction-campaign", "acme")}
    assert alerts[0].time == rises[0].facts.time


def test_refusals_say_when_to_come_back(played: Partition) -> None:
    refused = [d for d in played.decided["eve"] if d.verdict == "deny"]
    assert all(d.retry_after_ms > 0 for d in refused)
    assert {d.limit for d in refused} == {"p:eve|throttle", "p:eve|conceal", "p:eve|review", ""}
    assert all(d.retry_after_ms <= QUIET_MS for d in refused)


def test_what_is_concealed_is_told_to_the_worker(played: Partition) -> None:
    told = {d.step: played.work[d.request].degrade for d in played.decided["eve"] if d.verdict == "admit"}
    assert told == {"observe": False, "throttle": False, "conceal": True, "review": True}
    kept = {d.step: played.work[d.request].keep for d in played.decided["eve"] if d.verdict == "admit"}
    assert (kept["throttle"], kept["review"]) == ("findings", "all")


def test_who_works_hard_beside_it_is_served(played: Partition) -> None:
    assert {(d.verdict, d.step, d.findings) for d in played.decided["bob"]} == {("admit", "observe", ())}


def test_what_is_told_to_campaigns_lies_where_the_wording_belongs(played: Partition) -> None:
    shared = [d for d in played.decided["eve"] if d.signatures]
    assert shared
    asked = msgspec.structs.replace(shared[-1], verdict="deny", reasons=("extraction",))
    sent = [e for e in dispatch.after_decision(asked, 0, played.documents, None) if e.topic == "findings"]
    by_wording = [e for e in sent if decode(FindingEvent, e.value).signature]
    assert [decode(FindingEvent, e.value).signature for e in by_wording] == list(asked.signatures)
    assert all(e.partition == partition_of(e.key, 4) for e in by_wording)


def test_each_decision_derives_again_and_a_crash_at_any_place_keeps_the_steps(played: Partition) -> None:
    folded = Ledger()
    for number, record in enumerate(played.log):
        stored = decode_log(encode(record))
        if isinstance(stored, Decision):
            assert encode(decide(folded, played.documents, 0, stored.facts)) == encode(record)
        folded.apply(stored)
        if number % 700 == 0:
            folded = Ledger.load(folded.dump())
    assert folded.dump() == played.ledger.dump()


def test_quiet_takes_the_steps_back_one_by_one(played: Partition) -> None:
    held = Partition(played.documents, Ledger.load(played.ledger.dump()), offset=played.offset)
    last = played.decided["eve"][-1].facts.time
    seen = [held.ask("eve", work_hard(n), last + n * QUIET_MS + MINUTE) for n in range(1, 5)]
    assert [d.step for d in seen] == ["review", "conceal", "throttle", "observe"]
    assert held.ledger.accounts.status("eve").traffic.count == 1


def test_what_is_held_of_an_account_is_about_a_kilobyte(played: Partition) -> None:
    assert {len(held) <= 1_200 for held in played.ledger.accounts.packed.values()} == {True}
