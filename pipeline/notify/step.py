"""NOTIFY takes one batch in: alerts that arrive, and the replies to attempts that were made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.errors import Malformed
from pipeline.events.codec import decode, encode
from pipeline.events.control import Control
from pipeline.events.emission import Emission
from pipeline.events.messages import Alert, Delivery
from pipeline.notify.outbox import Outbox, PendingAlert, Schedule, WebhookReply, decide, give_up, target_name
from pipeline.stage import InputBatch, InputRecord, Rejection, Step

UNKNOWN_TENANT = "unknown_tenant"
"""The next alert is of a tenant that ``control`` may tell of when it is read to its end."""


class Arrival(NamedTuple):
    """An alert lies at this offset in ``alerts``."""

    offset: int
    alert: Alert


class DeliveryAttempt(NamedTuple):
    """An attempt was made at a webhook, or none could be: then ``url`` is empty and ``reply`` None."""

    pending: PendingAlert
    url: str = ""
    reply: WebhookReply | None = None

    @property
    def offset(self) -> int:
        """The alert's offset in ``alerts``."""
        return self.pending.offset


NotifyItem = InputRecord | PendingAlert | DeliveryAttempt
"""A record of ``alerts``, an alert that was folded in and not accepted yet, or an attempt."""


@dataclass(slots=True)
class NotifyStep(Step[Outbox]):
    """Each emission is one of ``deliveries``."""

    deliveries: list[Delivery] = field(default_factory=list)


class NotifyStage:
    """Delivers the alerts of one partition; its state is the outbox."""

    name = "notify"
    reads = ("alerts", "control", "deliveries")
    writes = ("deliveries",)
    signals = (UNKNOWN_TENANT,)

    def __init__(self, control: Control, partition: int, schedule: Schedule) -> None:
        self._control = control
        self._partition = partition
        self._schedule = schedule

    def start(self) -> Outbox:
        """Give the outbox before the first alert."""
        return Outbox()

    def fold(self, outbox: Outbox, records: Iterable[Arrival | Delivery]) -> Outbox:
        """Take in alerts, and attempts that are on record."""
        for record in records:
            if isinstance(record, Delivery):
                outbox.apply(record)
            else:
                outbox.add(record.offset, record.alert)
        return outbox

    def step(self, outbox: Outbox, batch: InputBatch[NotifyItem]) -> NotifyStep:
        """Accept alerts, those that were folded in as well, and settle attempts.

        The step ends before an alert of an unknown tenant unless the batch is ``drained``: ``control`` was read to its
        end.
        """
        step = NotifyStep(outbox)
        for item in batch.items:
            if isinstance(item, DeliveryAttempt):
                self._settle(step, item, batch.now)
            elif not self._take(step, item, batch):
                step.signal(UNKNOWN_TENANT)
                break
            step.consumed += 1
        return step

    def _take(self, step: NotifyStep, item: InputRecord | PendingAlert, batch: InputBatch[object]) -> bool:
        """Tell whether the alert is done with."""
        try:
            alert = item.alert if isinstance(item, PendingAlert) else decode(Alert, item.value)
        except Malformed:
            step.rejections.append(Rejection("alerts", item.offset, "malformed"))
            return True
        tenant = self._control.tenants.get(alert.tenant)
        if tenant is None and not batch.drained:
            return False
        outbox = step.state
        pending = item if isinstance(item, PendingAlert) else outbox.add(item.offset, alert)
        if pending is None:
            return True
        if tenant is None or not tenant.webhook:
            outbox.drop(alert)
        elif outbox.crowded(alert.tenant):
            self._record(step, give_up(pending, batch.now))
        return True

    def _settle(self, step: NotifyStep, attempt: DeliveryAttempt, now: int) -> None:
        if attempt.reply is None:
            self._record(step, give_up(attempt.pending, now))
        else:
            target = target_name(attempt.url)
            self._record(step, decide(attempt.pending, attempt.reply, now, target, self._schedule))

    def _record(self, step: NotifyStep, delivery: Delivery) -> None:
        step.state.apply(delivery)
        step.deliveries.append(delivery)
        step.emissions.append(Emission("deliveries", self._partition, delivery.target.encode(), encode(delivery)))
