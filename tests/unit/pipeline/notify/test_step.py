"""NOTIFY takes alerts in where there is a target and room, and records what it gives up."""

from __future__ import annotations

import pytest

from pipeline.admit.intake import Raw
from pipeline.events.codec import decode, encode
from pipeline.events.control import Control, Tenant
from pipeline.events.messages import Alert, Delivery
from pipeline.notify import outbox as outboxes
from pipeline.notify.outbox import Schedule, WebhookReply
from pipeline.notify.step import UNKNOWN_TENANT, Arrival, DeliveryAttempt, NotifyStage
from pipeline.stage import InputBatch

T = 1_760_000_000_000
URL = "https://example.org/hook"


def control(*tenants: str, url: str = URL) -> Control:
    made = Control()
    for version, name in enumerate(tenants):
        keys = {"data_key": "-", "hpke_public": "-", "hpke_private": "-"}
        made.apply(
            version, Tenant.model_validate({"id": name, "organisation": "o", "plan": "p", "webhook": url, **keys})
        )
    return made


def alert(number: int, tenant: str = "acme") -> Alert:
    return Alert(f"{tenant}{number}", T, "rule", 3, "o", tenant, "p", "title", 3, T)


def record(number: int, tenant: str = "acme") -> Raw:
    return Raw(number, T, encode(alert(number, tenant)), ())


def test_an_alert_of_an_unknown_tenant_waits_until_control_was_read_to_its_end() -> None:
    stage = NotifyStage(control("acme"), 0, Schedule())
    items = [record(0), record(1, "beta"), record(2)]
    step = stage.step(stage.start(), InputBatch(items, T, drained=False))
    assert (step.consumed, step.signals) == (1, {UNKNOWN_TENANT: 1})
    rest = stage.step(step.state, InputBatch(items[step.consumed :], T))
    assert (rest.consumed, rest.signals, rest.emissions) == (2, {}, [])
    assert [pending.offset for pending in rest.state.open()] == [0, 2]


def test_without_a_target_nothing_is_owed_and_nothing_recorded() -> None:
    stage = NotifyStage(control("acme", url=""), 0, Schedule())
    step = stage.step(stage.start(), InputBatch([record(0)], T))
    assert (step.emissions, step.state.open(), step.state.low(5)) == ([], [], 5)


def test_bytes_that_are_no_alert_are_rejected_and_the_next_one_is_taken() -> None:
    stage = NotifyStage(control("acme"), 0, Schedule())
    step = stage.step(stage.start(), InputBatch([Raw(0, T, b"{", ()), record(1)], T))
    assert [rejection.offset for rejection in step.rejections] == [0]
    assert [pending.offset for pending in step.state.open()] == [1]


def test_one_alert_too_many_is_given_up_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "MAX_PENDING", 2)
    stage = NotifyStage(control("acme"), 3, Schedule())
    step = stage.step(stage.start(), InputBatch([record(number) for number in range(4)], T))
    assert [pending.offset for pending in step.state.open()] == [0, 1]
    assert [(e.topic, e.partition, decode(Delivery, e.value).status) for e in step.emissions] == [
        ("deliveries", 3, "dead"),
        ("deliveries", 3, "dead"),
    ]
    folded = stage.fold(stage.start(), [Arrival(number, alert(number)) for number in range(4)])
    assert [d.alert for d in stage.step(folded, InputBatch(folded.open(), T)).deliveries] == ["acme0", "acme1"]


def test_an_attempt_is_settled_by_its_reply_or_given_up_without_one() -> None:
    stage = NotifyStage(control("acme"), 0, Schedule())
    outbox = stage.step(stage.start(), InputBatch([record(0), record(1)], T)).state
    first, second = outbox.open()
    step = stage.step(outbox, InputBatch([DeliveryAttempt(first, URL, WebhookReply(204)), DeliveryAttempt(second)], T))
    assert [(d.alert, d.status, bool(d.target)) for d in step.deliveries] == [
        ("acme0", "delivered", True),
        ("acme1", "dead", False),
    ]
    assert step.state.open() == []
