"""The correlation rules: what fires, what does not, and that reading again changes nothing."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.base import Finding
from pipeline.events.codec import encode
from pipeline.events.messages import FindingEvent
from pipeline.watch import correlate as watch

T0 = 1_760_000_400_000  # a border of the 10 and of the 5 minute buckets
assert T0 % watch.LONGEST_MS == 0


def event(
    time: int,
    rule: str = "",
    reason: str = "",
    *,
    n: int = 0,
    principal: str = "p1",
    tenant: str = "t1",
    stage: str = "admit",
) -> FindingEvent:
    findings = (Finding(rule, 3, 90, 0, 4, "raw", 0),) if rule else ()
    return FindingEvent(
        f"r{time}-{n}",
        time,
        "org",
        tenant,
        principal,
        stage,  # type: ignore[arg-type]
        "deny" if reason else "admit",
        (reason,) if reason else (),
        findings,
    )


def test_three_injections_by_one_principal_fire_once() -> None:
    alerts = watch.replay(event(T0 + i * 1000, "injection.override") for i in range(8))
    assert [a.rule for a in alerts] == ["repeated-injection"]
    (alert,) = alerts
    assert (alert.time, alert.first_time, alert.count) == (T0 + 2000, T0, 3)
    assert alert.requests == tuple(f"r{T0 + i * 1000}-0" for i in range(3))
    assert (alert.tenant, alert.principal, alert.organisation) == ("t1", "p1", "org")


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_injections_do_not_fire(count: int) -> None:
    assert watch.replay(event(T0 + i, "injection.override", n=i) for i in range(count)) == []


def test_injections_of_different_principals_or_tenants_do_not_add_up() -> None:
    apart = [
        event(T0, "injection.x", n=i, principal=p, tenant=t)
        for i, (p, t) in enumerate([("a", "t"), ("b", "t"), ("a", "u")])
    ]
    assert watch.replay(apart) == []


def test_the_window_is_half_open() -> None:
    window = watch.RULES[0].window_ms
    inside = [event(T0 + 1, "injection.x"), event(T0 + 2, "injection.x"), event(T0 + window, "injection.x")]
    outside = [event(T0, "injection.x"), event(T0 + 2, "injection.x"), event(T0 + window, "injection.x")]
    assert len(watch.replay(inside)) == 1
    assert watch.replay(outside) == []


def test_bucket_borders_hide_nothing() -> None:
    border = T0 + watch.LONGEST_MS
    alerts = watch.replay(event(border + i * 1000, "injection.x") for i in (-2, -1, 1))
    assert [a.time for a in alerts] == [border + 1000]


def test_a_lasting_attack_fires_once_per_bucket_with_different_ids() -> None:
    alerts = watch.replay(event(T0 + i * 60_000, "injection.x") for i in range(30))
    assert len(alerts) == 3
    assert len({a.alert for a in alerts}) == 3


def test_findings_sent_twice_count_once() -> None:
    twice = [event(T0, "injection.x"), event(T0, "injection.x"), event(T0 + 1, "injection.x")]
    assert watch.replay(twice) == []
    both_sides = [event(T0, "injection.x", stage=s) for s in ("admit", "generate")]
    assert len(watch.replay([*both_sides, event(T0 + 1, "injection.x")])) == 1


def refusals(total: int, principals: int, reason: str = "rate_limited") -> list[FindingEvent]:
    return [event(T0 + i, reason=reason, n=i, principal=f"p{i % principals}") for i in range(total)]


@pytest.mark.parametrize("reason", sorted(watch.QUOTA_REASONS))
def test_quota_abuse_fires_at_twenty_refusals_over_two_principals(reason: str) -> None:
    (alert,) = watch.replay(refusals(20, 2, reason))
    assert (alert.rule, alert.count, alert.principal) == ("quota-abuse", 20, "")
    assert len(alert.requests) == watch.MAX_REQUESTS


@pytest.mark.parametrize(
    ("total", "principals", "reason"), [(19, 3, "rate_limited"), (60, 1, "rate_limited"), (60, 3, "busy")]
)
def test_quota_abuse_needs_all_of_it(total: int, principals: int, reason: str) -> None:
    assert watch.replay(refusals(total, principals, reason)) == []


def test_a_loud_principal_does_not_push_the_others_out() -> None:
    quiet = [event(T0 + i, reason="rate_limited", principal=f"quiet{i}") for i in range(2)]
    loud = [event(T0 + 10 + i, reason="rate_limited", principal="loud") for i in range(5000)]
    assert [a.rule for a in watch.replay(quiet + loud)] == ["quota-abuse"]


def test_extraction_adds_up_over_the_principals_of_a_tenant() -> None:
    pair = [event(T0, "extraction.sweep", principal="a"), event(T0 + 5, "extraction.sweep", principal="b")]
    (alert,) = watch.replay(pair)
    assert (alert.rule, alert.count, alert.principal) == ("extraction-campaign", 2, "")
    assert watch.replay([pair[0], event(T0 + 5, "extraction.sweep", tenant="other")]) == []


def test_one_account_that_copies_the_model_is_an_alert_at_once() -> None:
    alarm = msgspec.structs.replace(
        event(T0, "extraction.sweep"), findings=(Finding("extraction.trace-harvest", 3, 90, 0, 0, "account", 0),)
    )
    (alert,) = watch.replay([alarm])
    assert (alert.rule, alert.requests) == ("extraction-campaign", (alarm.request,))


def test_memory_is_bounded() -> None:
    state = watch.WatchState()
    for i in range(watch.MAX_SUBJECTS + 50):
        watch.apply(state, event(T0 + i, "injection.x", principal=f"p{i}"))
    assert len(state.subjects) == watch.MAX_SUBJECTS
    for i in range(watch.MAX_PRINCIPALS + 50):
        watch.apply(state, event(T0 + i, reason="rate_limited", principal=f"p{i}", tenant="wide"))
    assert len(state.subjects["quota-abuse", "wide", ""].hits) == watch.MAX_PRINCIPALS


KINDS = [("injection.x", ""), ("extraction.y", ""), ("", "rate_limited"), ("other.z", ""), ("", "busy")]
steps = st.lists(
    st.tuples(
        st.integers(-watch.MINUTE_MS, 4 * watch.MINUTE_MS),  # late by up to a minute, or later
        st.sampled_from(KINDS),
        st.sampled_from(["p1", "p2", "p3"]),
        st.sampled_from(["t1", "t2"]),
    ),
    max_size=120,
)


def history(drawn: list[tuple[int, tuple[str, str], str, str]]) -> list[FindingEvent]:
    now, events = T0, []
    for n, (step, (rule, reason), principal, tenant) in enumerate(drawn):
        now += step // 4
        events.append(event(now, rule, reason, n=n, principal=principal, tenant=tenant))
    return events


@given(steps, st.integers(0, 119))
def test_reading_a_suffix_gives_the_same_alerts_where_it_covers_them(
    drawn: list[tuple[int, tuple[str, str], str, str]], cut: int
) -> None:
    events = history(drawn)
    since = max((e.time for e in events[:cut]), default=0) + 1
    whole = [encode(a) for a in watch.replay(events) if watch.covered(a, since)]
    suffix = [encode(a) for a in watch.replay(events[cut:]) if watch.covered(a, since)]
    assert suffix == whole


def test_the_suffix_property_is_not_empty() -> None:
    events = [event(T0 + i * 20_000, "injection.x") for i in range(200)]
    since = events[49].time + 1
    assert sum(watch.covered(a, since) for a in watch.replay(events)) >= 4


@given(steps)
def test_other_tenants_change_nothing(drawn: list[tuple[int, tuple[str, str], str, str]]) -> None:
    events = history(drawn)
    together = [a for a in watch.replay(events) if a.tenant == "t1"]
    assert together == watch.replay(e for e in events if e.tenant == "t1")


def test_every_rule_is_well_formed() -> None:
    assert len({rule.name for rule in watch.RULES}) == len(watch.RULES)
    for rule in watch.RULES:
        assert bool(rule.findings) != bool(rule.reasons)
        assert rule.hits <= watch.MAX_HITS
        assert 1 <= rule.severity <= 4
