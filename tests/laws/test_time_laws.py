"""One clock is wrong, a worker's or a broker's, by any amount and from any moment on: it delays, and does no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.admit import upgrade
from pipeline.admit.clocks import Clocks
from pipeline.admit.intake import Intake, Raw
from pipeline.admit.ledger import Ledger
from pipeline.admit.rules import RULES
from pipeline.admit.step import AdmitStage
from pipeline.audit.replay import Replay
from pipeline.events.codec import decode_log, encode
from pipeline.events.ids import GRACE_MS
from pipeline.events.messages import Completion
from pipeline.events.records import AHEAD_MS, Decision, Facts, LogRecord, Outcome, Tick, landed, time_of
from pipeline.events.wire import InferenceBody
from pipeline.stage import InputBatch
from tests.laws.test_admit_laws import CONTROL, START
from tests.tickets import TICKETS, ticketed

BODY = InferenceBody("glossary", 10, b"sealed")
TIMEOUT_MS = 30_000
HOUR_MS = 3_600_000


class Wrong(NamedTuple):
    """The clock of ``whose`` is off by ``ms`` from the act ``since`` on."""

    whose: str
    ms: int
    since: int


class Written(NamedTuple):
    record: LogRecord
    true: int
    """Unix ms by a right clock when it was written."""
    appended: int


@dataclass
class Partition:
    """A partition as its worker serves it, with a worker's and a broker's clock that may be wrong."""

    wrong: Wrong
    true: int = START
    act: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    log: list[Written] = field(default_factory=list)
    asked: int = 0
    reported: int = 0
    told: int = 0

    def clock(self, whose: str) -> int:
        return self.true + (self.wrong.ms if whose == self.wrong.whose and self.act >= self.wrong.since else 0)

    def ask(self) -> None:
        now, appended = self.clock("worker"), self.clock("broker")
        clocks = Clocks(now, self.ledger.time, appended)
        assert clocks.fresh(self.true, appended), "a sender with a right clock was refused"
        facts = Facts(
            offset=self.asked,
            time=clocks.agreed(appended),
            kind="inference",
            key="acme-key",
            session="s",
            counter=self.asked + 1,
            client_request=f"r{self.asked}",
            model="glossary",
            max_tokens=10,
            input_bound=1,
            deadline=clocks.deadline(appended, TIMEOUT_MS),
        )
        self.asked += 1
        self.serve([Intake(facts, BODY)])

    def report(self) -> None:
        """End the oldest open request."""
        reservation = next(iter(self.ledger.open.values()), None)
        if reservation is not None:
            report = Completion(reservation.request, "acme", "acme", "finished", "w", "a")
            raw = Raw(self.reported, self.clock("broker"), encode(ticketed(report)), ())
            self.reported += 1
            self.serve([raw])

    def serve(self, items: list[Any]) -> None:
        """Step until nothing is left to do, as the partition does; each batch lands at the broker's time."""
        stage, waiting, more = AdmitStage(CONTROL, 0, TICKETS), items, True
        for _ in range(20):
            step = stage.step(self.ledger, InputBatch(waiting, self.clock("worker"), ticks=more, told=self.told))
            waiting = waiting[step.consumed :]
            # one tick a second
            more = not step.ticked
            self._write(step.records)
            self.told = step.told if step.ticked else self.told
            if not waiting and not step.more:
                return

    def _write(self, records: list[LogRecord]) -> None:
        appended = self.clock("broker")
        assert len(records) == 1 or not any(isinstance(record, Tick) for record in records)
        if any(landed(record, appended) is not record for record in records):
            self.ledger.rollback()
            for record in records:
                self.ledger.apply(landed(record, appended))
        self.ledger.commit()
        self.log += [Written(record, self.true, appended) for record in records]

    @property
    def expiries(self) -> list[tuple[Outcome, int]]:
        return [(w.record, w.true) for w in self.log if isinstance(w.record, Outcome) and w.record.result == "expired"]


acts = st.lists(st.sampled_from(("ask", "report", "wait", "long wait")), min_size=3, max_size=25)
wrongs = st.builds(
    Wrong,
    st.sampled_from(("worker", "broker")),
    st.sampled_from((-HOUR_MS, -60_000, -6_000, 0, 6_000, 60_000, HOUR_MS)),
    st.integers(0, 12),
)


def played(wrong: Wrong, done: list[str]) -> Partition:
    partition = Partition(wrong)
    for partition.act, act in enumerate(done):
        partition.true += {"wait": 4_000, "long wait": TIMEOUT_MS + GRACE_MS}.get(act, 500)
        if act == "ask":
            partition.ask()
        elif act == "report":
            partition.report()
        else:
            partition.serve([])
    return partition


@settings(max_examples=150, deadline=None)
@given(wrongs, acts)
def test_one_wrong_clock_refuses_nothing_expires_nothing_and_pushes_nothing_ahead(
    wrong: Wrong, done: list[str]
) -> None:
    partition = played(wrong, done)
    admitted = {}
    for record, true, _ in partition.log:
        if isinstance(record, Decision):
            assert not {"deadline_passed", "clock_skew", "replayed"} & set(record.reasons)
            admitted[record.request] = true
        if isinstance(record, Decision | Outcome):
            assert time_of(record) <= true + AHEAD_MS, "pushed ahead by a clock that is alone with it"
    assert partition.ledger.time <= partition.true + AHEAD_MS
    for outcome, true in partition.expiries:
        assert true >= admitted[outcome.request] + TIMEOUT_MS + GRACE_MS - AHEAD_MS


@settings(max_examples=100, deadline=None)
@given(wrongs, acts)
def test_live_folded_restored_and_verified_agree(wrong: Wrong, done: list[str]) -> None:
    """A tick that landed earlier than it says is the same to the one who wrote it and to every reader of the log."""
    partition = played(wrong, done)
    folded: upgrade.AnyLedger = Ledger()
    replay = Replay(RULES[1:], 0, ())
    replay.control = CONTROL
    for at, written in enumerate(partition.log):
        stored = decode_log(encode(written.record))
        assert replay.push(stored, encode(stored), written.appended) == []
        folded = upgrade.fold(folded, stored, written.appended)
        if at % 5 == 0:
            folded = upgrade.load(folded.dump())
    assert folded.dump() == partition.ledger.dump()
    assert replay.ledger.digest() == partition.ledger.digest()


@pytest.mark.parametrize("ms", [HOUR_MS, 60_000])
def test_a_fast_worker_expires_what_is_due_and_nothing_before(ms: int) -> None:
    partition = Partition(Wrong("worker", ms, 0))
    partition.ask()
    for _ in range(14):
        partition.true += 1_000
        partition.serve([])
    assert partition.expiries == []
    assert partition.ledger.time == partition.true, "ticks count for the time at which they landed"
    partition.true = START + TIMEOUT_MS + GRACE_MS
    partition.serve([])
    assert [outcome.time for outcome, _ in partition.expiries] == [partition.true]


@pytest.mark.parametrize("ms", [600, 60_000])
def test_what_is_due_expires_while_requests_never_cease_to_come(ms: int) -> None:
    """A broker that is ahead by more than the time between two requests keeps the ledger ahead of its worker."""
    partition = Partition(Wrong("broker", ms, 0))
    partition.ask()
    lost = next(iter(partition.ledger.open))
    for _ in range(2 * (TIMEOUT_MS + GRACE_MS + ms) // 500):
        partition.true += 500
        partition.ask()
    assert [outcome.request for outcome, _ in partition.expiries][:1] == [lost]
    _, true = partition.expiries[0]
    assert ms <= true - START - TIMEOUT_MS - GRACE_MS <= ms + 1_000


def test_a_slow_worker_expires_late() -> None:
    partition = Partition(Wrong("worker", -60_000, 0))
    partition.ask()
    partition.true += TIMEOUT_MS + GRACE_MS
    partition.serve([])
    assert partition.expiries == []
    partition.true += 60_000
    partition.serve([])
    assert len(partition.expiries) == 1


@pytest.mark.parametrize("ms", [HOUR_MS, -HOUR_MS])
def test_a_whole_machine_that_jumps_goes_on_serving(ms: int) -> None:
    """Broker and worker jump together; back again, the log stands still where it was and nothing comes too late."""
    partition = Partition(Wrong("", 0, 0))
    for jump in (0, ms, -ms, 0):
        partition.true += jump
        for _ in range(2):
            partition.true += 20_000
            partition.ask()
            partition.report()
    decisions = [written.record for written in partition.log if isinstance(written.record, Decision)]
    assert [d.reasons for d in decisions if "deadline_passed" in d.reasons] == []
    assert len(decisions) == 8
    assert all(d.facts.deadline > d.facts.time for d in decisions)
