"""The gateway tells a request's queue position to its own principal until it runs, and keeps a bounded number."""

from __future__ import annotations

import pytest

from inference.types import QueuePosition
from pipeline.events.codec import decode, encode
from pipeline.events.messages import Response, Work
from pipeline.gateway.answers import request_status
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.waiting import ResponseRouter
from pipeline.generate import answer as generate

NAME = ("acme", "acme-1:r")
WORK = Work("g1-0-7", 0, "acme", *NAME[:1], "acme-1", NAME[1], -1, 1)


def told(position: int, eta_s: float | None, work: Work = WORK) -> Response:
    return decode(Response, encode(generate.position_response(work, "w.1", QueuePosition(position, eta_s))))


def make_router(held: int = 4) -> ResponseRouter:
    return ResponseRouter(Metrics(), held, 1 << 20)


def opened(response: Response, field: str = "", sealed: bytes = b"") -> bytes:
    return response.sealed


@pytest.mark.parametrize(("eta_s", "eta_ms"), [(1.25, 1250), (0.0, 0), (None, None)])
def test_the_newest_place_is_told_while_the_request_waits(eta_s: float | None, eta_ms: int | None) -> None:
    router = make_router()
    for position in (9, 3):
        router.deliver(told(position, eta_s))
    answer = request_status(NAME[1], None, router.queue_position(NAME))
    assert (answer["result"], answer["queue"]) == ("open", {"position": 3, "eta_ms": eta_ms})


@pytest.mark.parametrize("event", ["chunk", "end", "refusal"])
def test_nothing_is_told_once_it_runs_or_has_ended(event: str) -> None:
    router = make_router()
    router.deliver(told(1, 2.0))
    router.deliver(Response("g1-0-7", NAME[1], "acme", event, "w.1"))  # type: ignore[arg-type]
    assert router.queue_position(NAME) is None
    assert "queue" not in request_status(NAME[1], None, router.queue_position(NAME))


def test_a_place_is_no_part_of_the_answer() -> None:
    router = make_router()
    waiter = router.register(NAME, opened)
    waiter.set_request("g1-0-7")
    router.deliver(told(1, 2.0))
    assert not waiter.answered
    assert waiter.reply.end is None
    assert router.queue_position(NAME) is not None
    assert router.queue_position(("other", NAME[1])) is None


def test_places_are_bounded() -> None:
    router = make_router(held=2)
    for n in range(5):
        router.deliver(told(n + 1, None, Work("q", 0, "acme", "acme", "acme-1", f"acme-1:{n}", -1, 1)))
    assert [router.queue_position(("acme", f"acme-1:{n}")) is not None for n in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]
