"""A key counts in many sessions, but not in as many as its holder can think of."""

from __future__ import annotations

import pytest

from pipeline.admit.decide import decide, following
from pipeline.admit.ledger import MAX_SESSIONS, SESSION_MS, Ledger
from pipeline.events.records import Decision, Facts, SnapshotMark
from tests.laws.test_admit_laws import CONTROL, START


def ask(ledger: Ledger, session: str, time: int, counter: int = 1, key: str = "acme-key", fault: str = "") -> Decision:
    offset = ledger.position.next_request
    facts = Facts(
        offset, time, "inference", fault, key=key, client_request=f"r{offset}", session=session, counter=counter,
        model="glossary", max_tokens=5, input_bound=5, deadline=time + 1_000,
    )  # fmt: skip
    made = decide(ledger, CONTROL, 0, following(facts, ledger.position))
    ledger.apply(made)
    return made


def flooded(time: int = START) -> Ledger:
    ledger = Ledger()
    for number in range(MAX_SESSIONS):
        assert ask(ledger, f"s{number}", time).reasons[:1] != ("too_many_sessions",)
    return ledger


def count(ledger: Ledger, key: str = "acme-key") -> int:
    return len(ledger.sessions.get(key, {}))


@pytest.mark.parametrize("fault", ["", "clock_skew", "malformed"])
def test_a_key_with_ever_fresh_sessions_takes_no_more_memory(fault: str) -> None:
    ledger = flooded()
    for number in range(50):
        assert ask(ledger, f"more-{number}", START + 1, fault=fault).reasons == (fault or "too_many_sessions",)
    assert count(ledger) == MAX_SESSIONS


def test_sessions_that_count_already_and_other_keys_go_on() -> None:
    ledger = flooded()
    ask(ledger, "one too many", START)
    assert "too_many_sessions" not in ask(ledger, "s7", START + 1, counter=2).reasons
    assert ask(ledger, "s7", START + 2, counter=2).reasons == ("replayed",)
    assert ask(ledger, "its own", START + 3, key="beta-key").verdict == "admit"


@pytest.mark.parametrize("through", ["live", "restored", "a lost race"])
def test_a_session_counts_anew_once_others_are_silent(through: str) -> None:
    ledger = flooded()
    assert ask(ledger, "fresh", START + SESSION_MS - 1).reasons == ("too_many_sessions",)
    if through == "restored":
        ledger = Ledger.load(ledger.dump())
    if through == "a lost race":
        before = ledger.dump()
        ledger.begin()
        ask(ledger, "fresh", START + SESSION_MS)
        ledger.rollback()
        assert (ledger.dump(), count(ledger)) == (before, MAX_SESSIONS)
    assert ask(ledger, "fresh", START + SESSION_MS).verdict == "admit"
    assert ask(ledger, "fresh", START + SESSION_MS + 1).reasons == ("replayed",)
    assert count(ledger) == 1
    assert Ledger.load(ledger.dump()).dump() == ledger.dump()


def test_a_mark_forgets_silent_sessions_and_keys_without_any() -> None:
    ledger = flooded()
    ask(ledger, "late", START + 1, key="beta-key")
    ledger.apply(SnapshotMark(START + SESSION_MS, 0, b"", 0, 1))
    assert {key: list(windows) for key, windows in ledger.sessions.items()} == {"beta-key": ["late"]}
