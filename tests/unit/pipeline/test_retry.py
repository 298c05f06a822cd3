"""Retries: what is tried again, what is not, and what ends the wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from pipeline import retry
from pipeline.errors import ConfigError, Fatal, Malformed, Retryable, Stopped
from pipeline.retry import Backoff, retry_blocking, retry_forever, retry_until, unless_stopped
from tests.patience import STUCK_S


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retry, "MAX_PAUSE_S", 0.002)


class Failing:
    """A dependency that answers at the given attempt, and fails before."""

    def __init__(self, answers_at: int, fault: Exception | None = None) -> None:
        self.attempts, self._answers_at = 0, answers_at
        self._fault = fault or Retryable("it is away")

    def ask(self) -> str:
        self.attempts += 1
        if self.attempts < self._answers_at:
            raise self._fault
        return "answer"

    async def ask_later(self) -> str:
        return self.ask()


def run(scene: Awaitable[str]) -> str:
    async def bounded() -> str:
        async with asyncio.timeout(STUCK_S):
            return await scene

    return asyncio.run(bounded())


def forever(act: Callable[[], Awaitable[str]]) -> str:
    async def scene() -> str:
        return await retry_forever(act, asyncio.Event(), "the answer")

    return run(scene())


Way = Callable[[Failing], str]
WAYS: dict[str, Way] = {
    "forever": lambda failing: forever(failing.ask_later),
    "until": lambda failing: run(retry_until(failing.ask_later, STUCK_S, "the answer")),
    "blocking": lambda failing: retry_blocking(failing.ask, STUCK_S, "the answer"),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@each_way
def test_what_may_pass_is_tried_until_it_does_and_the_log_hears_of_it_once(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failing = Failing(answers_at=9)
    assert way(failing) == "answer"
    assert failing.attempts == 9
    waiting, over = caplog.messages
    assert waiting == "waiting for the answer: it is away"
    assert over.startswith("no longer waiting for the answer, after ")


@each_way
def test_what_succeeds_at_once_is_not_worth_a_word(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert way(Failing(answers_at=1)) == "answer"
    assert caplog.messages == []


@each_way
@pytest.mark.parametrize("fault", [Fatal("x"), ConfigError("x"), Malformed("x"), ValueError("x")], ids=repr)
def test_any_other_fault_ends_the_wait_at_once(way: Way, fault: Exception) -> None:
    failing = Failing(2, fault)
    with pytest.raises(type(fault)):
        way(failing)
    assert failing.attempts == 1


@pytest.mark.parametrize(
    "way",
    [
        lambda failing: run(retry_until(failing.ask_later, 0.0, "the answer")),
        lambda failing: retry_blocking(failing.ask, 0.0, "the answer"),
    ],
    ids=["until", "blocking"],
)
def test_a_wait_with_an_end_raises_what_was_wrong_last(way: Way) -> None:
    failing = Failing(answers_at=10**9)
    with pytest.raises(Retryable, match=r"^gave up after 0 s: it is away$"):
        way(failing)
    assert failing.attempts == 1


def test_a_stop_ends_the_pause_but_not_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 10 * STUCK_S)
    seen: list[str] = []

    async def scene() -> str:
        stop = asyncio.Event()

        async def act() -> str:
            seen.append("begun")
            stop.set()
            await asyncio.sleep(0.01)
            seen.append("ended")
            raise Retryable("it is away")

        return await retry_forever(act, stop, "the answer")

    with pytest.raises(Stopped, match="stopped while waiting for the answer: it is away"):
        run(scene())
    assert seen == ["begun", "ended"]


def test_at_start_up_a_stop_cuts_an_attempt_off_that_never_ends() -> None:
    ended: list[str] = []

    async def scene() -> str:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, stop.set)

        async def act() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cleaned up")
            return ""

        return await retry_until(act, STUCK_S, "the answer", stop)

    with pytest.raises(Stopped, match="stopped while waiting for the answer"):
        run(scene())
    assert ended == ["cleaned up"]


def test_an_attempt_at_start_up_that_takes_long_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(retry, "SLOW_S", 0.01)

    async def act() -> str:
        await asyncio.sleep(0.1)
        return "answer"

    assert run(retry_until(act, STUCK_S, "the answer")) == "answer"
    assert caplog.messages == ["waiting for the answer"]


def test_work_that_is_done_before_the_stop_gives_its_result() -> None:
    async def scene() -> str:
        return await unless_stopped(Failing(1).ask_later(), asyncio.Event(), "the answer")

    assert run(scene()) == "answer"


def test_pauses_grow_to_a_ceiling_differ_and_start_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 1.0)
    monkeypatch.setattr(retry, "MAX_PAUSE_S", 4.0)
    error = Retryable("it is away")
    backoff = Backoff("the answer")
    pauses = [backoff.fail(error) for _ in range(20)]
    for pause, longest in zip(pauses, [1.0, 2.0, *[4.0] * 18], strict=True):
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 20
    monkeypatch.setattr(retry, "STEADY_S", 0.0)
    assert backoff.fail(error) <= 1.0
