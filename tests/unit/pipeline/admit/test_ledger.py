"""The ledger applies what can follow, and refuses the rest without a trace."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from pipeline.admit.ledger import Ledger
from pipeline.admit.replay_window import ReplayWindow
from pipeline.errors import Fatal, Malformed
from pipeline.events.records import Charge, ControlMark, Decision, Facts, LogRecord, Outcome, SnapshotMark, Tick

T = 1_790_000_000_000
CHARGE = Charge("p:ann|open|open|tokens", "open", "tokens", 5, 9, 60_000)


def admitted(offset: int, time: int = T, skipped: int = 0) -> Decision:
    facts = Facts(
        offset,
        time,
        "inference",
        key="k",
        client_request=f"c{offset}",
        session="s",
        counter=offset + 1,
        skipped=skipped,
    )
    made = Decision(f"g1-0-{offset}", facts, "admit", 3, organisation="o", tenant="t", principal="ann")
    return msgspec.structs.replace(made, sequence=offset + 1, charges=(CHARGE,))


def ended(offset: int, result: str = "finished", time: int = T + 50) -> Outcome:
    back = msgspec.structs.replace(CHARGE, amount=-CHARGE.amount)
    return Outcome(f"g1-0-{offset}", time, result, "o", "t", "ann", 9, offset, charges=(back,))  # type: ignore[arg-type]


def folded(*records: LogRecord) -> Ledger:
    ledger = Ledger()
    for record in records:
        ledger.apply(record)
    return ledger


REFUSED: dict[str, LogRecord] = {
    "a second outcome": ended(0, time=T + 10_000),
    "a second outcome of another kind": ended(0, "expired"),
    "an outcome of a request that was never decided": ended(7),
    "a second decision for an offset": msgspec.structs.replace(admitted(1, T + 10_000), request="g1-0-99"),
    "a decision for an offset that was passed": admitted(0, T + 10_000),
    "a second decision for an open request": msgspec.structs.replace(admitted(5, T + 10_000), request="g1-0-1"),
    "a refusal of an open request": msgspec.structs.replace(admitted(1), verdict="deny", reasons=("busy",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_record_that_cannot_follow_changes_nothing(name: str) -> None:
    ledger = folded(ControlMark(T, 3), admitted(0), admitted(1), ended(0))
    before, clients = ledger.dump(), dict(ledger.clients)
    with pytest.raises(Fatal):
        ledger.apply(REFUSED[name])
    assert (ledger.dump(), ledger.clients) == (before, clients)
    ledger.apply(ended(1))
    assert not ledger.open


def test_offsets_are_passed_over_only_by_saying_so() -> None:
    """The markers of transactions leave gaps in a source; a writer that skips a request is wrong."""
    assert folded(admitted(0), admitted(3, skipped=2)).position.next_request == 4
    for skipped in (0, 1, 3):
        with pytest.raises(Fatal):
            folded(admitted(0), admitted(3, skipped=skipped))


@pytest.mark.parametrize("step", [Ledger.rollback, Ledger.commit], ids=["rollback", "commit"])
def test_a_journal_undoes_all_or_nothing(step: Callable[[Ledger], None]) -> None:
    ledger = folded(ControlMark(T, 3), admitted(0), admitted(1))
    before = ledger.dump()
    ledger.begin()
    for record in (ended(0), admitted(2), Tick(T + 100_000_000), SnapshotMark(T + 100_000_000, 9, b"", 0, 1)):
        ledger.apply(record)
    after = ledger.dump()
    assert after != before
    step(ledger)
    assert ledger.dump() == (before if step is Ledger.rollback else after)
    ledger.rollback()
    assert ledger.dump() == (before if step is Ledger.rollback else after)


def test_a_rollback_brings_back_what_was_due() -> None:
    ledger = folded(admitted(0))
    ledger.begin()
    ledger.apply(ended(0))
    assert not list(ledger.due(T + 1_000_000, 0))
    ledger.rollback()
    assert [reservation.request for reservation in ledger.due(T + 1_000_000, 0)] == ["g1-0-0"]


WHOLE = folded(admitted(0)).dump()
OLDER = WHOLE.replace(b"format\x04", b"format\x02")


@pytest.mark.parametrize("stored", [b"{", b"[]", b'{"format":4}', WHOLE[:20], WHOLE[:-30], WHOLE + b"x", OLDER])
def test_bytes_of_another_form_are_refused(stored: bytes) -> None:
    with pytest.raises(Malformed, match="ledger"):
        Ledger.load(stored)


def test_a_loaded_ledger_goes_on_like_the_one_that_was_stored() -> None:
    ledger = folded(ControlMark(T, 3), admitted(0), admitted(1))
    loaded = Ledger.load(ledger.dump())
    for record in (ended(1), admitted(2)):
        ledger.apply(record)
        loaded.apply(record)
    assert (loaded.dump(), loaded.clients) == (ledger.dump(), ledger.clients)


def test_a_counter_of_long_ago_takes_no_memory() -> None:
    """One header must not make a window of 10^14 bits, which no worker could hold and no snapshot could tell."""
    window = ReplayWindow(10**14, 1, T).with_counter(1, T)
    assert (window.seen, window.fresh(1), window.fresh(10**14 + 1)) == (1, False, True)


def test_a_mark_is_folded_in_turns_as_in_one() -> None:
    charges = [Charge(f"p:p{n}|day|rate|tokens", "rate", "tokens", 1, 9, 60_000) for n in range(10_000)]
    one, other = folded(), folded()
    for ledger in (one, other):
        for offset in range(3_000):
            facts = Facts(offset, T, "inference", key=f"k{offset}", session="s", counter=1)
            mine = tuple(charges[offset::3_000])
            ledger.apply(Decision(f"g1-0-{offset}", facts, "deny", 3, reasons=("busy",), charges=mine))
    later = SnapshotMark(T + 10_000_000, 9, b"", 0, 1)
    one.apply(later)
    other.begin()
    before = other.dump()
    assert sum(1 for _ in other.apply_mark(later)) > 5
    assert (other.dump(), other.sessions, other.cells.rates) == (one.dump(), {}, {})
    other.rollback()
    assert other.dump() == before
