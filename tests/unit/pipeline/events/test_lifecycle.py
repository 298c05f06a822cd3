"""The table of a request's life is whole, and says no to everything it does not name."""

from __future__ import annotations

from typing import get_args

import pytest

from pipeline.errors import Fatal
from pipeline.events.lifecycle import TRANSITIONS, State, after, event_of
from pipeline.events.records import Decision, Facts, Outcome, Result

ADMIT = Decision("r", Facts(0, 0, "inference"), "admit", 0)
DENY = Decision("r", Facts(0, 0, "inference"), "deny", 0, reasons=("busy",))
ACCEPT = Decision("r", Facts(0, 0, "cancel"), "admit", 0)
OUTCOMES = [Outcome("r", 0, result, "o", "t", "p", 1) for result in get_args(Result)]
LEGAL: dict[State, dict[Decision | Outcome, State]] = {
    "new": {ADMIT: "open", DENY: "closed", ACCEPT: "closed"},
    "open": dict.fromkeys(OUTCOMES, "closed"),
    "closed": {},
}


@pytest.mark.parametrize("state", get_args(State))
@pytest.mark.parametrize("record", [ADMIT, DENY, ACCEPT, *OUTCOMES], ids=event_of)
def test_a_record_moves_its_request_as_the_table_says_or_is_refused(state: State, record: Decision | Outcome) -> None:
    if record in LEGAL[state]:
        assert after(state, record) == LEGAL[state][record]
    else:
        with pytest.raises(Fatal, match=f"request r is {state}: expected .*, got {event_of(record)}"):
            after(state, record)


def test_every_state_is_reached_and_the_last_one_leads_nowhere() -> None:
    assert set(TRANSITIONS) == set(get_args(State))
    reached = {state for events in TRANSITIONS.values() for state in events.values()}
    assert {"new", *reached} == set(TRANSITIONS)
    assert TRANSITIONS["closed"] == {}
