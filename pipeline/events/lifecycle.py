"""A request lives through three states; decisions and outcomes move it from one to the next, and nothing else does.

The table is the law: the ledger applies no record that it does not name, and the tests hold every log against it.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from pipeline.errors import Fatal
from pipeline.events.records import Decision, Outcome, Result

State = Literal["new", "open", "closed"]
"""Not decided yet; admitted and without an outcome; refused or ended."""
Event = Literal["deny", "admit", "accept"] | Result
"""A decision denies an inference request or admits it. A cancel is accepted: nothing is run and no outcome follows."""

TRANSITIONS: Final[dict[State, dict[str, State]]] = {
    "new": {"deny": "closed", "accept": "closed", "admit": "open"},
    "open": dict.fromkeys(get_args(Result), "closed"),
    "closed": {},
}


def event_of(record: Decision | Outcome) -> Event:
    """Name what the record does to its request."""
    if isinstance(record, Outcome):
        return record.result
    return "accept" if record.facts.kind != "inference" and record.verdict == "admit" else record.verdict


def after(state: State, record: Decision | Outcome) -> State:
    """Give the state that the record leads to. Raises Fatal where the table has no such transition."""
    event = event_of(record)
    following = TRANSITIONS[state].get(event)
    if following is None:
        legal = ", ".join(TRANSITIONS[state]) or "no further record"
        raise Fatal(
            f"request {record.request} is {state}: expected {legal}, got {event}. A writer of decisions is wrong: stop "
            "it, then run sluice audit verify."
        )
    return following
