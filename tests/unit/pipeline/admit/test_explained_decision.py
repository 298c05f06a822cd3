"""A refusal is explained by the ledger before it: the limits that refuse, and the first moment at which none does."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pipeline.admit.decide import decide, following, outcome
from pipeline.admit.explained_decision import ExplainedDecision, explain
from pipeline.admit.ledger import Ledger
from pipeline.admit.rules import RULES
from pipeline.audit.replay import Replay
from pipeline.events.codec import encode
from pipeline.events.messages import Completion
from pipeline.events.reasons import LIMIT_REASONS
from pipeline.events.records import Decision, Facts, Outcome
from tests.laws.test_admit_laws import CEILING, CONTROL, START

asks = st.tuples(st.integers(0, 40_000), st.integers(1, CEILING), st.booleans())
"""Pause before it in ms, prompt bound, and whether it has ended before the next comes."""


class History:
    """One caller's requests, decided one after the other, and a replay that stands right before the next one."""

    def __init__(self) -> None:
        self.replay = Replay(RULES[1:], 0, ())
        self.replay.control = CONTROL
        self.offset = 0
        self.time = START

    @property
    def ledger(self) -> Ledger:
        assert isinstance(self.replay.ledger, Ledger)
        return self.replay.ledger

    def asked(self, pause: int, bound: int, **fields: Any) -> Decision:
        self.time += pause
        named = {"kind": "inference", "key": "acme-key", "client_request": f"r{self.offset}", "model": "glossary"}
        sized = {"input_bound": bound, "max_tokens": 1, "deadline": self.time + 30_000}
        facts = Facts(**{"offset": self.offset, "time": self.time, **named, **sized, **fields})
        return decide(self.ledger, CONTROL, 0, following(facts, self.ledger.position))

    def take(self, decision: Decision, *, ends: bool) -> None:
        self.replay.fold(decision, self.time)
        self.offset += 1
        if ends and decision.verdict == "admit":
            report = Completion(decision.request, "acme", "acme", "finished", "w", "a", input_tokens=1)
            end = outcome(self.ledger, self.offset, self.time, report)
            assert end is not None
            self.replay.fold(end, self.time)

    def verdict_at(self, facts: Facts, time: int) -> str:
        later = msgspec.structs.replace(facts, time=time, deadline=time + 30_000)
        return decide(self.ledger, CONTROL, 0, later).verdict

    def explained(self, decision: Decision, body: bytes = b"") -> ExplainedDecision:
        return explain(decision, body or encode(decision), self.replay)


@given(st.lists(asks, min_size=1, max_size=25))
def test_it_had_been_let_in_at_the_moment_that_is_told_and_not_before(drawn: list[tuple[int, int, bool]]) -> None:
    history = History()
    for pause, bound, ends in drawn:
        decision = history.asked(pause, bound)
        told = history.explained(decision)
        refusing = [limit for limit in told.limits if limit.refuses]
        assert told.derived == "same"
        assert bool(refusing) == (decision.verdict == "deny")
        if decision.verdict == "deny":
            assert decision.reasons[0] in LIMIT_REASONS.values()
            assert decision.limit == refusing[0].limit
        if told.wait == "until":
            assert history.verdict_at(decision.facts, told.admitted_at) == "admit"
            assert history.verdict_at(decision.facts, told.admitted_at - 1) == "deny"
        else:
            assert (told.wait == "none") == (decision.verdict == "admit")
            assert told.admitted_at == 0
        history.take(decision, ends=ends)


def test_more_than_a_limit_ever_gives_is_never_let_in() -> None:
    history = History()
    told = history.explained(history.asked(0, CEILING + 1))
    assert (told.wait, told.limits[-1].held, told.limits[-1].asked) == ("never", 0, CEILING + 2)


def test_what_is_open_refuses_until_one_ends() -> None:
    history = History()
    history.take(history.asked(0, CEILING - 1), ends=False)
    told = history.explained(history.asked(1, 5))
    assert told.wait == "until_one_ends"
    assert [(limit.limit, limit.held, limit.asked) for limit in told.limits if limit.refuses] == [
        ("p:acme-1|open", CEILING, 6)
    ]


def test_another_stored_decision_is_told_with_what_the_rules_give() -> None:
    history = History()
    decision = history.asked(0, 5)
    stored = msgspec.structs.replace(decision, verdict="deny", reasons=("busy",), charges=())
    told = history.explained(stored)
    assert (told.verdict, told.derived, told.derived_as) == ("deny", "differs", "admit")


def test_a_refusal_before_any_limit_names_none() -> None:
    history = History()
    told = history.explained(history.asked(0, 5, fault="unsigned"))
    assert (told.reason, told.limits, told.wait) == ("unsigned", (), "none")
    assert told.message.startswith("The signature does not match.")


def test_rules_that_are_not_known_here_derive_nothing() -> None:
    history = History()
    stranger = msgspec.structs.replace(history.asked(0, 5), decider=99)
    told = history.explained(stranger)
    assert (told.derived, told.derived_as, told.limits) == ("unknown", "", ())


def test_what_is_asked_of_a_ledger_stands_still_at_no_outcome_of_nothing_open() -> None:
    """A worker folds such a log as well, and the verifier names the fault."""
    replay = Replay(RULES[1:], 0, ())
    replay.fold(Outcome("g1-0-7", START, "finished", "acme", "acme", "acme", 1), START)
    assert replay.ledger.digest() == Ledger().digest()
