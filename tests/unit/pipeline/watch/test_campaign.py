"""Campaigns across accounts: organisations meet under one wording, each tenant learns of its own part alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.accounts.campaign import FLOOR, MAX_WEIGHT, MEMBERS
from pipeline.events.codec import encode
from pipeline.events.messages import FindingEvent
from pipeline.watch import campaign
from pipeline.watch import correlate as watch

T0 = 1_760_000_400_000
WORDING = (2 << 40) + 77
SURE = FLOOR + MAX_WEIGHT


def shared(n: int, who: str, time: int = T0, score: int = SURE, signature: int = WORDING) -> FindingEvent:
    organisation, tenant, principal = who.split("/")
    return FindingEvent(
        f"g-0-{n}", time, organisation, tenant, principal, "admit", "admit", signature=signature, score=score
    )


def test_accounts_of_three_organisations_are_one_campaign_and_each_tenant_has_its_alert() -> None:
    who = ["acme/acme/a", "beta/beta/b", "gamma/gamma/c", "beta/beta/d"]
    found = watch.replay(shared(n, name, T0 + n) for n, name in enumerate(who))
    assert [(a.rule, a.tenant, a.count) for a in found] == [("campaign", t, 3) for t in ("acme", "beta", "gamma")]
    assert {a.campaign for a in found} == {f"{WORDING:016x}"}
    assert [a.requests for a in found] == [("g-0-0",), ("g-0-1",), ("g-0-2",)]
    assert len({a.alert for a in found}) == 3


def test_a_tenant_that_joins_is_told_and_all_are_told_again_an_hour_later() -> None:
    first = [shared(n, f"o{n}/o{n}/p", T0) for n in range(MEMBERS)]
    joined = shared(9, "late/late/p", T0 + 5)
    later = shared(10, "late/late/p", T0 + campaign.BUCKET_MS)
    alerts = watch.replay([*first, joined, later])
    assert [a.tenant for a in alerts] == ["o0", "o1", "o2", "late", "late", "o0", "o1", "o2"]


def test_few_accounts_weak_ones_other_wordings_and_silent_ones_are_none() -> None:
    assert not watch.replay(shared(n, "acme/acme/a", T0 + n) for n in range(50))
    assert not watch.replay(shared(n, f"o/o/{n}", score=FLOOR - 1) for n in range(50))
    assert not watch.replay(shared(n, f"o/o/{n}", signature=n + 1) for n in range(50))
    apart = campaign.WINDOW_MS // 2 + 1
    assert not watch.replay(shared(n, f"o/o/{n}", T0 + n * apart) for n in range(50))


def test_the_same_reports_again_raise_nothing() -> None:
    events = [shared(n, f"o{n}/o{n}/p", T0 + n) for n in range(5)]
    state = watch.WatchState()
    assert [a for e in events for a in watch.apply(state, e)]
    assert not [a for e in events for a in watch.apply(state, e)]


@given(
    st.lists(
        st.tuples(st.integers(0, campaign.BUCKET_MS), st.integers(0, 5), st.integers(1, 2), st.integers(0, SURE)),
        max_size=60,
    ),
    st.integers(0, 59),
)
def test_reading_a_suffix_gives_the_same_alerts_where_it_covers_them(
    drawn: list[tuple[int, int, int, int]], cut: int
) -> None:
    now, events = T0, []
    for n, (step, who, signature, score) in enumerate(drawn):
        now += step
        events.append(shared(n, f"o{who}/o{who}/p", now, score, signature))
    since = max((e.time for e in events[:cut]), default=0) + 1
    whole = [encode(a) for a in watch.replay(events) if watch.covered(a, since)]
    assert [encode(a) for a in watch.replay(events[cut:]) if watch.covered(a, since)] == whole


def test_memory_is_bounded() -> None:
    state = campaign.CampaignState()
    for n in range(campaign.MAX_SIGNATURES + 9):
        campaign.correlate(state, shared(n, "o/o/p", signature=n + 1))
    assert len(state.campaigns) == campaign.MAX_SIGNATURES
