"""The outbox: schedule, records of attempts, and that it is a fold of alerts and deliveries."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.events.codec import decode, encode
from pipeline.events.messages import Alert, Delivery
from pipeline.notify import outbox as notify
from pipeline.notify.outbox import Outbox, Schedule, WebhookReply

T0 = 1_760_000_000_000
SCHEDULE = Schedule()


def alert(n: int, tenant: str = "t1", severity: int = 3) -> Alert:
    return Alert(f"{n:032x}", T0 + n, "rule-a", severity, "org", tenant, "p1", "A title", 3, T0, ("r-1", "r-2"))


def test_an_alert_is_retried_on_schedule_until_it_is_dead() -> None:
    outbox, now, waits = Outbox(), T0, []
    outbox.add(7, alert(1))
    for attempt in range(1, SCHEDULE.attempts + 1):
        (held,) = outbox.due(now, set())
        record = notify.decide(held, WebhookReply(500), now, "target", SCHEDULE)
        assert (record.attempt, record.http_status) == (attempt, 500)
        outbox.apply(record)
        if record.status == "retry":
            assert outbox.due(record.next_time - 1, set()) == []
            waits.append(record.next_time - now)
            now = record.next_time
    assert record.status == "dead"
    assert outbox.open() == []
    assert outbox.low(99) == 99
    assert waits[:6] == sorted(waits[:6])
    assert 5_000 <= waits[0] <= 5_500
    assert SCHEDULE.cap_ms <= waits[-1] <= SCHEDULE.cap_ms * 1.1
    assert sum(waits) < 2 * 24 * notify.HOUR_MS


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (WebhookReply(200), "delivered"),
        (WebhookReply(204), "delivered"),
        (WebhookReply(0), "retry"),
        (WebhookReply(199), "retry"),
        (WebhookReply(302), "retry"),
        (WebhookReply(404), "retry"),
        (WebhookReply(410), "dead"),
        (WebhookReply(503), "retry"),
    ],
)
def test_only_2xx_is_delivered_and_only_gone_ends_it_early(answer: WebhookReply, status: str) -> None:
    held = Outbox().add(0, alert(1))
    assert held is not None
    assert notify.decide(held, answer, T0, "target", SCHEDULE).status == status


def test_retry_after_is_honoured_up_to_the_cap() -> None:
    held = Outbox().add(0, alert(1))
    assert held is not None
    assert notify.decide(held, WebhookReply(429, 60_000), T0, "t", SCHEDULE).next_time == T0 + 60_000
    assert notify.decide(held, WebhookReply(429, 10**12), T0, "t", SCHEDULE).next_time == T0 + SCHEDULE.cap_ms
    assert notify.decide(held, WebhookReply(429, 1), T0, "t", SCHEDULE).next_time >= T0 + SCHEDULE.base_ms


def test_repeats_in_alerts_are_taken_once() -> None:
    outbox = Outbox()
    held = outbox.add(0, alert(1))
    assert held is not None
    assert outbox.add(1, alert(1)) is None
    outbox.apply(notify.decide(held, WebhookReply(200), T0, "t", SCHEDULE))
    assert outbox.add(2, alert(1)) is None


def test_a_tenant_whose_target_hangs_holds_up_nobody_else() -> None:
    outbox = Outbox()
    for n in range(10):
        outbox.add(n, alert(n, "slow"))
    outbox.add(10, alert(10, "quick"))
    assert [held.alert.tenant for held in outbox.due(T0, set())] == ["slow", "quick"]
    assert [held.alert.tenant for held in outbox.due(T0, {"slow"})] == ["quick"]
    assert outbox.low(11) == 0


def test_a_retry_does_not_stand_before_what_never_was_tried() -> None:
    outbox = Outbox()
    first, second = outbox.add(0, alert(0)), outbox.add(1, alert(1))
    assert first is not None
    assert second is not None
    outbox.apply(notify.decide(first, WebhookReply(500), T0, "t", SCHEDULE))
    assert outbox.due(T0 + notify.HOUR_MS, set()) == [second]


def test_what_waits_is_bounded_per_tenant() -> None:
    outbox = Outbox()
    for n in range(notify.MAX_PENDING):
        outbox.add(n, alert(n, "full"))
    assert not outbox.crowded("full")
    last = outbox.add(notify.MAX_PENDING, alert(notify.MAX_PENDING, "full"))
    assert last is not None
    assert outbox.crowded("full")
    assert not outbox.crowded("other")
    outbox.apply(notify.give_up(last, T0))
    assert not outbox.crowded("full")


steps = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([200, 500, 0, 410]), st.integers(0, 7 * notify.HOUR_MS)), max_size=60
)


@given(steps, st.integers(0, 60))
def test_the_outbox_is_a_fold_of_alerts_and_deliveries(drawn: list[tuple[int, int, int]], crash: int) -> None:
    live, now = Outbox(), T0
    alerts, deliveries = [alert(n, f"t{n % 3}") for n in range(7)], []
    for offset, one in enumerate(alerts):
        live.add(offset, one)
    for n, (_, status, wait) in enumerate(drawn):
        now += wait
        for held in live.due(now, set()):
            record = notify.decide(held, WebhookReply(status), now, "target", SCHEDULE)
            if n < crash:  # later records were never written
                deliveries.append(encode(record))
                live.apply(record)
    again = Outbox()
    for offset, one in enumerate(alerts):
        again.add(offset, decode(Alert, encode(one)))
    for value in deliveries:
        again.apply(decode(Delivery, value))
    assert {tenant: dict(lane) for tenant, lane in again.pending.items()} == {
        tenant: dict(lane) for tenant, lane in live.pending.items()
    }
    assert again.low(7) == live.low(7)


def test_the_body_is_an_ocsf_detection_finding() -> None:
    body = json.loads(notify.body(alert(5, severity=4)))
    assert (body["type"], body["timestamp"]) == ("alert.raised", "2025-10-09T08:53:20.005+00:00")
    finding = body["data"]
    assert finding["type_uid"] == finding["class_uid"] * 100 + finding["activity_id"] == 200401
    assert finding["finding_info"]["uid"] == finding["metadata"]["uid"] == f"{5:032x}"
    assert (finding["severity_id"], finding["severity"], finding["count"]) == (5, "Critical", 3)
    assert (finding["metadata"]["tenant_uid"], finding["time"], finding["start_time"]) == ("t1", T0 + 5, T0)
    required = {"activity_id", "category_uid", "class_uid", "finding_info", "metadata", "severity_id", "time"}
    assert required <= finding.keys()


def test_the_largest_body_fits_what_receivers_take() -> None:
    widest = Alert("f" * 32, T0, "r" * 60, 4, "o" * 63, "t" * 63, "p" * 63, "w" * 200, 10**6, T0, ("r" * 128,) * 20)
    assert len(notify.body(widest)) < 20_000


def test_targets_are_named_without_their_url() -> None:
    name = notify.target_name("https://hooks.example.com/T000/secret")
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
