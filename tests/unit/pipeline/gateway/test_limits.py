"""What callers are told of their limits: the headers that stock clients read, and the newest values that came by."""

from __future__ import annotations

import pytest

from pipeline.events.control import Limit
from pipeline.events.limits import LimitState, QuotaState, ScopedLimit
from pipeline.events.messages import Response
from pipeline.gateway.limits import SeenLimits, duration, limit_headers, quota_document
from pipeline.gateway.metrics import Metrics
from pipeline.gateway.waiting import ResponseRouter

RPM = ScopedLimit("t:acme", Limit(id="rpm", meter="rate", amount=60))
DAY = ScopedLimit("p:acme-1", Limit(id="day", meter="budget", unit="tokens", amount=1000, period_s=86_400))
OPEN = ScopedLimit("p:acme-1", Limit(id="open", meter="open", amount=4))


def state(scoped: ScopedLimit, remaining: int, reset_ms: int) -> LimitState:
    return LimitState(scoped.name, scoped.limit.amount, remaining, reset_ms)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (12, "12ms"),
        (1_000, "1s"),
        (1_500, "1.5s"),
        (7_660, "7.66s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (179_560, "2m59.56s"),
        (93_603_001, "26h0m3.001s"),
    ],
)
def test_a_duration_reads_as_those_of_openai(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_headers_tell_the_tightest_limit_of_each_unit() -> None:
    wider = ScopedLimit("o:acme", Limit(id="rpm", meter="rate", amount=600))
    quota = QuotaState(5, (state(wider, 12, 58_800), state(RPM, 59, 1_000), state(DAY, 40, 360_000)))
    assert limit_headers(quota) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "12",
        "x-ratelimit-reset-requests": "58.8s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "40",
        "x-ratelimit-reset-tokens": "6m0s",
    }


def test_of_two_that_leave_the_same_the_one_to_wait_longer_for_is_told() -> None:
    day = ScopedLimit("t:acme", Limit(id="daily", meter="budget", amount=50, period_s=86_400))
    headers = limit_headers(QuotaState(5, (state(RPM, 0, 1_000), state(day, 0, 3_600_000))))
    assert headers["x-ratelimit-reset-requests"] == "1h0m0s"


def test_what_is_open_at_once_is_no_header() -> None:
    assert limit_headers(QuotaState(5, (state(OPEN, 0, -1),))) == {}
    assert limit_headers(None) == {}


def test_the_newest_value_counts_whatever_came_last() -> None:
    seen = SeenLimits()
    seen.add(QuotaState(2_000, (state(RPM, 7, 53_000),)))
    seen.add(QuotaState(1_000, (state(RPM, 8, 52_000),)))
    [row] = quota_document([RPM], seen)["data"]
    assert (row["remaining"], row["as_of"], row["reset"]) == (7, 2_000, 55_000)


def test_nothing_is_guessed() -> None:
    seen = SeenLimits()
    seen.add(QuotaState(1_000, (state(RPM, 8, 52_000), state(OPEN, 3, -1))))
    changed = ScopedLimit(RPM.scope, RPM.limit.model_copy(update={"amount": 30}))
    rows = quota_document([changed, DAY, OPEN], seen)["data"]
    assert rows[0] == {
        "level": "tenant",
        "id": "rpm",
        "unit": "requests",
        "meter": "rate",
        "limit": 30,
        "period_s": 60,
        "remaining": None,
        "reset": None,
        "as_of": None,
    }
    assert (rows[1]["level"], rows[1]["remaining"]) == ("principal", None)
    assert (rows[2]["remaining"], rows[2]["reset"], rows[2]["as_of"], rows[2]["period_s"]) == (3, None, 1_000, None)


def test_those_not_told_for_longest_are_forgotten_first() -> None:
    seen = SeenLimits(most=2)
    for time, scoped in enumerate((RPM, DAY, RPM, OPEN)):
        seen.add(QuotaState(time, (state(scoped, 1, 0),)))
    assert [seen.newest(scoped) is None for scoped in (RPM, DAY, OPEN)] == [False, True, False]


def test_answers_that_nobody_waits_for_tell_too() -> None:
    router = ResponseRouter(Metrics(), 10, 10_000)
    quota = QuotaState(9, (state(RPM, 3, 0),))
    router.deliver(Response("q", "acme-1:r", "acme", "chunk", sealed=b"x", quota=quota))
    assert router.limits.newest(RPM) == (9, quota.limits[0])
