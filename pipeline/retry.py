"""Repeats what failed for a dependency's fault, later each time, and tells the log what is waited for.

Only Retryable is tried again; every other error ends the wait at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pipeline.errors import Retryable, Stopped

T = TypeVar("T")
_log = logging.getLogger(__name__)
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 2.0
REMIND_S = 60.0
"""Seconds between two log lines about the same wait."""
STEADY_S = 60.0
"""What went well for this long starts over with the shortest pause."""
SLOW_S = 1.0
"""An attempt at start-up that takes longer than this is told to the log, as it has no error to show yet."""
_random = random.SystemRandom()


class Backoff:
    """Pauses between the attempts at one thing; each is twice the last up to a bound, less up to half at random.

    They begin at FIRST_PAUSE_S and grow to MAX_PAUSE_S where nothing else is said.
    """

    def __init__(self, what: str, timeout_s: float = math.inf, first_s: float = 0, most_s: float = 0) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._first_s = first_s or FIRST_PAUSE_S
        self._most_s = most_s or MAX_PAUSE_S
        self._pause_s = self._first_s
        self._began = self._failed = time.monotonic()
        self._logged: float | None = None

    def fail(self, error: Retryable) -> float:
        """Give the seconds to pause for. Raises Retryable where there is no time left for another attempt."""
        now = time.monotonic()
        waited = now - self._began
        if waited >= self._timeout_s:
            raise Retryable(f"gave up after {waited:.0f} s: {error}") from error
        if now - self._failed > STEADY_S:
            self._pause_s = self._first_s
        self._failed = now
        if self._logged is None or waited - self._logged >= REMIND_S:
            self._logged = waited
            _log.warning("waiting for %s: %s", self._what, error)
        longest, self._pause_s = self._pause_s, min(2 * self._pause_s, self._most_s)
        return _random.uniform(longest / 2, longest)

    def succeed(self) -> None:
        """Tell the log that the wait is over, if it heard of it."""
        if self._logged is not None:
            _log.info("no longer waiting for %s, after %.1f s", self._what, time.monotonic() - self._began)


async def retry_forever(act: Callable[[], Awaitable[T]], stop: asyncio.Event, what: str) -> T:
    """Give the result of the first attempt that succeeds. ``stop`` cuts the pauses off, never an attempt.

    ``what`` names what is waited for. Raises Stopped where an attempt failed and ``stop`` is set.
    """
    backoff: Backoff | None = None
    while True:
        try:
            result = await act()
        except Retryable as error:
            backoff = backoff or Backoff(what)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff.fail(error))
            if stop.is_set():
                raise Stopped(f"stopped while waiting for {what}: {error}") from error
        else:
            if backoff is not None:
                backoff.succeed()
            return result


async def retry_until(
    act: Callable[[], Awaitable[T]], timeout_s: float, what: str, stop: asyncio.Event | None = None
) -> T:
    """Give the result of the first attempt that succeeds; for start-up, where ``stop`` cuts an attempt off as well.

    Raises the last Retryable with how long it was tried, and Stopped as soon as ``stop`` is set.
    """
    attempts = _attempts(act, timeout_s, what)
    return await (attempts if stop is None else unless_stopped(attempts, stop, what))


async def _attempts(act: Callable[[], Awaitable[T]], timeout_s: float, what: str) -> T:
    backoff = Backoff(what, timeout_s)
    slow = asyncio.get_running_loop().call_later(SLOW_S, _log.info, "waiting for %s", what)
    try:
        while True:
            try:
                result = await act()
            except Retryable as error:
                slow.cancel()
                await asyncio.sleep(backoff.fail(error))
            else:
                backoff.succeed()
                return result
    finally:
        slow.cancel()


def retry_blocking(act: Callable[[], T], timeout_s: float, what: str) -> T:
    """Give the result of the first attempt that succeeds, in a program without an event loop.

    Raises the last Retryable with how long it was tried.
    """
    backoff = Backoff(what, timeout_s)
    while True:
        try:
            result = act()
        except Retryable as error:
            time.sleep(backoff.fail(error))
        else:
            backoff.succeed()
            return result


async def unless_stopped(work: Awaitable[T], stop: asyncio.Event, what: str) -> T:
    """Give the result of ``work``, which is cancelled when ``stop`` is set first. Raises Stopped then."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped(f"stopped while waiting for {what}")
        return task.result()
    finally:
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=SLOW_S / 2)
