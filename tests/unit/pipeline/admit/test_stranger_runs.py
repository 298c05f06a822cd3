"""Consecutive records of strangers are answered together: one decision says first, last and reason of the run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.admit.clocks import Clocks
from pipeline.admit.decide import decide, following
from pipeline.admit.history import span_of
from pipeline.admit.intake import Intake, Raw, RequestReader
from pipeline.admit.ledger import Ledger
from pipeline.admit.rules import RULES
from pipeline.admit.step import AdmitStage
from pipeline.audit.replay import Replay
from pipeline.errors import Fatal
from pipeline.events import wire
from pipeline.events.codec import decode, encode
from pipeline.events.messages import DeadLetter
from pipeline.events.reasons import REASONS
from pipeline.events.records import Decision, Facts
from pipeline.stage import InputBatch
from tests.laws.test_admit_laws import CONTROL, START
from tests.tickets import TICKETS

READER = RequestReader(CONTROL, None, 0)  # type: ignore[arg-type]
"""Opens nothing that is genuine, so it needs no keys."""
CLOCKS = Clocks(START, START, START)
LATE = START + 10**6


SIGNED = wire.sign(bytes(32), "acme-key", "p:1", "inference", b"{}", time=START, session="s", counter=1)


class Right:
    """Gives the secret that SIGNED was made with."""

    def key_secret(self, _: str) -> bytes:
        return bytes(32)


def garbage(offset: int, value: bytes = b"x") -> Raw:
    return Raw(offset, START + offset, value, ())


def stranger(offset: int) -> Raw:
    headers = wire.sign(bytes(32), "nobody", "p:1", "inference", b"{}", time=START, session="s", counter=1)
    return Raw(offset, START + offset, b"{}", headers)


def opened(*raws: Raw) -> list[Intake]:
    return READER.open(raws, CLOCKS).intakes(())


def spans(intakes: list[Intake]) -> list[tuple[int, int, str]]:
    return [(i.facts.start, i.facts.offset, i.facts.fault) for i in intakes]


def decided(ledger: Ledger, *raws: Raw) -> list[Decision]:
    step = AdmitStage(CONTROL, 0, TICKETS).step(ledger, InputBatch(opened(*raws), START))
    ledger.commit()
    return [record for record in step.records if isinstance(record, Decision)]


def test_a_flood_of_garbage_is_one_decision_and_one_dead_letter() -> None:
    stage, raws = AdmitStage(CONTROL, 0, TICKETS), [garbage(at, b"g%d" % at) for at in range(60_000)]
    step = stage.step(stage.start(), InputBatch(opened(*raws), START))
    (decision,) = [record for record in step.records if isinstance(record, Decision)]
    assert (decision.facts.first, decision.facts.offset, decision.reasons) == (0, 59_999, ("malformed",))
    assert (decision.verdict, decision.sequence, decision.charges) == ("deny", 0, ())
    (letter,) = [decode(DeadLetter, e.value) for e in step.actions if e.topic == "dead_letters"]
    size = sum(len(raw.value) for raw in raws)
    assert (letter.first, letter.offset, letter.size, letter.reason) == (0, 59_999, size, "malformed")
    assert step.state.position.next_request == 60_000


def test_a_run_ends_at_another_fault_and_at_a_gap() -> None:
    raws = (garbage(0), garbage(1), stranger(2), stranger(3), garbage(4), garbage(7), garbage(8))
    assert spans(opened(*raws)) == [
        (0, 1, "malformed"),
        (2, 3, "unknown_key"),
        (4, 4, "malformed"),
        (7, 8, "malformed"),
    ]


def test_records_of_callers_are_answered_each_by_itself() -> None:
    """Facts of a caller bear its key: two of them never become one."""

    class Wrong:
        def key_secret(self, _: str) -> bytes:
            return b"right"

    reader = RequestReader(CONTROL, Wrong(), 0)  # type: ignore[arg-type]
    unsigned = reader.open([Raw(at, START, b"{}", SIGNED) for at in range(3)], CLOCKS).intakes(())
    assert spans(unsigned) == [(0, 2, "unsigned")]

    # the signature is right and the time is wrong
    reader = RequestReader(CONTROL, Right(), 0)  # type: ignore[arg-type]
    late = reader.open([Raw(at, LATE, b"{}", SIGNED) for at in range(3)], Clocks(LATE, LATE, LATE)).intakes(())
    assert spans(late) == [(at, at, "clock_skew") for at in range(3)]


def test_a_batch_that_was_not_unpacked_is_answered_by_one_decision() -> None:
    packed = Raw(9_999, START, b"packed bytes", (), 1)
    (first, run) = decided(Ledger(), garbage(0), packed)
    assert first.facts.offset == 0
    assert (run.facts.first, run.facts.offset, run.reasons) == (1, 9_999, ("unreadable_batch",))
    assert REASONS[run.reasons[0]].status == 400


def test_so_many_are_opened_until_enough_are_known() -> None:
    flood = [garbage(at) for at in range(4096)]
    assert READER.open(flood, CLOCKS, 512).records == 4096
    reader = RequestReader(CONTROL, Right(), 0)  # type: ignore[arg-type]
    known = [Raw(at, LATE, b"{}", SIGNED) for at in range(4, 20)]
    assert reader.open([*flood[:4], *known], Clocks(LATE, LATE, LATE), 2).records == 6


def test_a_part_that_another_writer_answered_is_left_out() -> None:
    ledger = Ledger()
    decided(ledger, *[garbage(at) for at in range(5)])
    (decision,) = decided(ledger, *[garbage(at) for at in range(8)])
    assert (decision.facts.first, decision.facts.offset, decision.facts.skipped) == (5, 7, 0)
    (last,) = decided(ledger, garbage(7), garbage(8))
    assert (last.facts.first, last.facts.offset) == (-1, 8)
    assert decided(ledger, garbage(8)) == []


def test_a_gap_before_a_run_is_told() -> None:
    ledger = Ledger()
    (decision,) = decided(ledger, garbage(3), garbage(4))
    assert (decision.facts.skipped, decision.facts.first, decision.facts.offset) == (3, 3, 4)
    assert span_of([decision], 0) == (0, 5)


BAD_RUNS: dict[str, dict[str, Any]] = {
    "that names a key": {"fault": "malformed", "key": "acme-key"},
    "without a fault": {"fault": ""},
    "that begins behind its end": {"fault": "malformed", "first": 6},
    "that begins at its end": {"fault": "malformed", "first": 4},
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_no_other_run_is_applied_and_the_verifier_names_it(name: str) -> None:
    facts = following(Facts(**{"offset": 4, "time": START, "first": 0, **BAD_RUNS[name]}), Ledger().position)
    bad = msgspec.structs.replace(facts, first=BAD_RUNS[name].get("first", 0), skipped=0)
    record = decide(Ledger(), CONTROL, 0, bad)
    with pytest.raises(Fatal):
        Ledger().apply(record)
    replay = Replay(RULES[1:], 0, ())
    replay.control = CONTROL
    assert replay.push(record, encode(record), START)


def test_the_verifier_derives_runs_and_finds_those_that_answer_twice() -> None:
    ledger, replay = Ledger(), Replay(RULES[1:], 0, ())
    replay.control = CONTROL
    (decision,) = decided(ledger, *[garbage(at) for at in range(5)])
    assert replay.push(decision, encode(decision), START) == []
    (late,) = decided(Ledger(), *[garbage(at) for at in range(7)])
    assert any("second decision" in fault for fault in replay.push(late, encode(late), START))
