"""GENERATE tells the end of a run only once its completion is written, and nothing after a fault."""

from __future__ import annotations

import msgspec
import pytest

from inference.types import Chunk, FinishReason, QueuePosition
from pipeline.events.codec import decode
from pipeline.events.control import Control, Deployment
from pipeline.events.emission import Emission
from pipeline.events.ids import GRACE_MS
from pipeline.events.limits import LimitState, QuotaState
from pipeline.events.messages import Completion, Response, Work
from pipeline.generate.answer import AnswerStream
from pipeline.generate.guard import Guards
from pipeline.generate.step import (
    TEXT_WAITS,
    Acknowledged,
    ChunkArrived,
    Ended,
    Failed,
    GenerateStage,
    Leaving,
    Queued,
    Run,
    RunEvent,
    Runs,
)
from pipeline.stage import InputBatch, Step

T = 1_790_000_000_000
WORK = Work("q", 2, "acme", "acme", "app", "r1", 3, T + 1_000, model="m")


def stage() -> GenerateStage:
    control = Control()
    control.apply(0, Deployment(generation="g1", partitions=4))
    return GenerateStage(control, "w")


def begun() -> Run:
    return Run(WORK, "a1", AnswerStream(WORK, "a1", "w", lambda name, raw: raw, Guards(())))


def chunk(text: str, finish: FinishReason | None = None) -> ChunkArrived:
    return ChunkArrived("q", Chunk("q", text, 0, 1, finish, 5, 1), 7)


def take(runs: Runs, *events: RunEvent, now: int = T) -> Step[Runs]:
    return stage().step(runs, InputBatch(events, now))


def told(emission: Emission) -> str:
    if emission.topic == "completions":
        return decode(Completion, emission.value).result
    return decode(Response, emission.value).event


def test_text_that_gathers_leaves_as_one_response() -> None:
    step = take({}, begun(), chunk("one "), chunk("two"))
    assert (step.signals, step.emissions) == ({TEXT_WAITS: 1}, [])
    (emission,) = take(step.state, Leaving("q")).emissions
    assert (emission.topic, emission.partition, emission.key) == ("responses", 3, b"q")
    assert decode(Response, emission.value).sealed == b"one two"
    assert take(step.state, Leaving("q")).emissions == []


def test_the_rest_and_the_end_follow_the_acknowledged_completion() -> None:
    step = take({}, begun(), chunk("all of it", FinishReason.STOP), Ended("q", FinishReason.STOP, "a@1"))
    (completion,) = step.emissions
    assert (completion.topic, completion.partition, completion.key) == ("completions", 2, b"acme")
    assert decode(Completion, completion.value).adapter == "a@1"
    closing = take(step.state, Acknowledged("q"))
    assert [told(emission) for emission in closing.emissions] == ["chunk", "end"]
    assert closing.state == {}


@pytest.mark.parametrize(("late_ms", "events"), [(GRACE_MS - 1, ["end"]), (GRACE_MS, [])])
def test_an_end_is_not_told_once_the_request_may_have_expired(late_ms: int, events: list[str]) -> None:
    runs = take({}, begun(), Ended("q", None)).state
    step = take(runs, Acknowledged("q"), now=WORK.deadline + late_ms)
    assert [told(emission) for emission in step.emissions] == events


def test_after_a_fault_no_more_of_the_answer_leaves() -> None:
    runs = take({}, begun(), chunk("secret")).state
    assert [told(emission) for emission in take(runs, Failed("q")).emissions] == ["failed"]
    assert take(runs, Leaving("q")).emissions == []
    assert [told(emission) for emission in take(runs, Acknowledged("q")).emissions] == ["end"]


def test_a_request_that_could_not_be_opened_fails() -> None:
    step = take({}, Run(WORK, "a1"), Failed("q"), Acknowledged("q"))
    assert [told(emission) for emission in step.emissions] == ["failed", "end"]


@pytest.mark.parametrize("ends", [(Ended("q", FinishReason.STOP),), (Ended("q", None),), (Failed("q"),)])
def test_a_completion_returns_the_ticket_of_its_work(ends: tuple[RunEvent, ...]) -> None:
    work = msgspec.structs.replace(WORK, ticket=b"given")
    run = Run(work, "a1", AnswerStream(work, "a1", "w", lambda name, raw: raw, Guards(())))
    (emission,) = take({}, run, *ends).emissions
    assert decode(Completion, emission.value).ticket == b"given"


def test_a_place_in_the_queue_is_told_where_it_has_changed() -> None:
    runs = take({}, begun()).state
    places = [QueuePosition(2, None), QueuePosition(2, None), None, QueuePosition(1, 0.5), QueuePosition(0, None)]
    step = take(runs, *(Queued("q", place) for place in places))
    assert [decode(Response, emission.value).ahead for emission in step.emissions] == [2, 1]


def test_what_comes_after_the_end_changes_nothing() -> None:
    assert take({}, Leaving("q"), chunk("x"), Queued("q", QueuePosition(1, None))).emissions == []


QUOTA = QuotaState(T, (LimitState("t:acme|rpm|rate|requests", 60, 59, 1_000),))


def quotas(*events: RunEvent) -> list[tuple[str, bool]]:
    work = msgspec.structs.replace(WORK, quota=QUOTA)
    run = Run(work, "a1", AnswerStream(work, "a1", "w", lambda name, raw: raw, Guards(())))
    responses = [decode(Response, e.value) for e in take({}, run, *events).emissions if e.topic == "responses"]
    assert {response.quota for response in responses} <= {QUOTA, None}
    return [(response.event, response.quota is not None) for response in responses]


def test_the_first_response_tells_what_the_decision_left_and_no_other_does() -> None:
    place = Queued("q", QueuePosition(1, None))
    ended = (Ended("q", FinishReason.STOP), Acknowledged("q"))
    streamed = quotas(place, chunk("one"), Leaving("q"), chunk("two"), Leaving("q"), *ended)
    assert streamed == [("place", False), ("chunk", True), ("chunk", False), ("end", False)]
    assert quotas(*ended) == [("end", True)]
    assert quotas(Failed("q"), Acknowledged("q")) == [("end", True)]
