"""Tickets, and what a completion may say of the request that it ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.admit.completions import MAX_COUNT, Tickets, misreported, refused
from pipeline.admit.snapshot import Reservation
from pipeline.events.messages import Completion
from pipeline.events.records import Charge, Decision, Facts
from tests.tickets import TICKETS, ticketed

HELD = Reservation(
    "g1-0-7", 7, 1, 2, "o", "acme", "app", "r7", 0, (Charge("*|capacity", "open", "tokens", 30, 99, 60_000),),
    input_bound=20, max_tokens=10,
)  # fmt: skip
REPORT = Completion("g1-0-7", "o", "acme", "finished", "w", "a", input_tokens=20, output_tokens=10)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"tenant": "globex"}, "tenant"),
        ({"organisation": "globex"}, "tenant"),
        ({"input_tokens": -1_000_000}, "counts"),
        ({"output_tokens": -1}, "counts"),
        ({"first_token_ms": -1}, "counts"),
        ({"first_token_ms": MAX_COUNT}, "counts"),
        ({"input_tokens": 21, "output_tokens": 0}, "over_reserved"),
        ({"input_tokens": 0, "output_tokens": 11}, "over_reserved"),
    ],
)
def test_a_report_says_what_its_reservation_allows(fields: dict[str, Any], reason: str | None) -> None:
    report = msgspec.structs.replace(REPORT, **fields)
    assert misreported(HELD, report) == reason
    assert refused(TICKETS, HELD, ticketed(report)) == reason
    assert refused(TICKETS, HELD, report) == "ticket"


def test_a_model_whose_tokens_are_estimated_may_take_more_than_was_reserved() -> None:
    held = msgspec.structs.replace(HELD, estimated=True)
    over = msgspec.structs.replace(REPORT, input_tokens=21, output_tokens=11)
    assert misreported(held, over) is None
    assert misreported(held, msgspec.structs.replace(over, input_tokens=MAX_COUNT)) == "counts"


def test_what_decider_6_reserved_is_known_by_its_sum_and_needs_no_ticket() -> None:
    held = msgspec.structs.replace(HELD, decider=6, input_bound=0, max_tokens=0)
    assert refused(TICKETS, held, msgspec.structs.replace(REPORT, input_tokens=25, output_tokens=5)) is None
    assert refused(TICKETS, held, msgspec.structs.replace(REPORT, input_tokens=25, output_tokens=6)) == "over_reserved"


def test_a_ticket_outlives_a_change_of_the_key_and_is_of_one_request() -> None:
    before, after = Tickets((b"k1",)), Tickets((b"k2", b"k1"))
    assert after.genuine("r", before.ticket("r"))
    assert after.ticket("r") != before.ticket("r")
    assert not before.genuine("r", after.ticket("r"))
    assert not after.genuine("s", after.ticket("r"))
    assert not after.genuine("r", b"")


def test_work_of_decider_6_bears_no_ticket() -> None:
    made = Decision("g1-0-7", Facts(7, 1, "inference"), "admit", 0)
    assert (TICKETS.of(made), len(TICKETS.of(msgspec.structs.replace(made, decider=7)))) == (b"", 32)
