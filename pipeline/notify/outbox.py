"""NOTIFY decides which alert is due at which target, and what its reply means. Sans-IO; time is Unix milliseconds.

Reads ``alerts``; owns ``deliveries`` of the same partition, the history of all attempts. The outbox is a fold of the
two, so a worker that was killed goes on with the attempts that were recorded. An attempt whose record was not written
is made again with the same ``webhook-id`` and the same body: a receiver may see an alert twice, never not at all.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline.events.messages import Alert, Delivery

SECOND_MS = 1000
HOUR_MS = 3600 * SECOND_MS
MAX_PENDING = 5_000
"""Alerts waiting per tenant; what comes on top is recorded as dead at once, so one dead target fills no memory."""
MAX_DONE = 50_000
"""Finished alert ids remembered against repeats in ``alerts``."""
GONE = 410
_OCSF_SEVERITY = {1: (2, "Low"), 2: (3, "Medium"), 3: (4, "High"), 4: (5, "Critical")}


@dataclass(frozen=True, slots=True)
class Schedule:
    """Attempt n + 1 follows attempt n after ``base_ms * 4 ** (n - 1)``, at most ``cap_ms``, plus up to a tenth."""

    base_ms: int = 5 * SECOND_MS
    cap_ms: int = 6 * HOUR_MS
    attempts: int = 12
    """After so many an alert is dead: 31 hours with these values. Must end well before ``alerts`` is cut (7 days)."""

    def wait(self, alert: str, attempt: int) -> int:
        """Give the ms from attempt ``attempt`` (1 for the first) to the next; the same for equal arguments."""
        wait = min(self.base_ms << 2 * min(attempt - 1, 20), self.cap_ms)
        spread = int.from_bytes(hashlib.sha256(f"{alert}:{attempt}".encode()).digest()[:4], "big")
        return wait + wait * (spread % 100) // 1000


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """A target replied to an attempt, or did not."""

    status: int
    """HTTP status; 0 where none came."""
    retry_after_ms: int = 0
    fault: str = ""
    """The reason for which no status came, in words for the log; holds no part of the URL."""

    @property
    def delivered(self) -> bool:
        return 200 <= self.status < 300


@dataclass(slots=True)
class PendingAlert:
    """An alert is neither delivered nor dead."""

    alert: Alert
    offset: int
    """Its offset in ``alerts``."""
    attempts: int = 0
    due: int = 0


@dataclass(slots=True)
class Outbox:
    """One partition still has these alerts to deliver."""

    pending: dict[str, OrderedDict[str, PendingAlert]] = field(default_factory=dict)
    """By tenant, then alert id, oldest first."""
    done: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def add(self, offset: int, alert: Alert) -> PendingAlert | None:
        """Take an alert in; None where it is known or finished (``alerts`` may hold it twice)."""
        waiting = self.pending.setdefault(alert.tenant, OrderedDict())
        if alert.alert in waiting or alert.alert in self.done:
            return None
        pending = waiting[alert.alert] = PendingAlert(alert, offset)
        return pending

    def open(self) -> list[PendingAlert]:
        """Give the alerts that are neither delivered nor dead."""
        return [pending for waiting in self.pending.values() for pending in waiting.values()]

    def crowded(self, tenant: str) -> bool:
        """Tell whether the newest alert of this tenant is one too many."""
        return len(self.pending.get(tenant, ())) > MAX_PENDING

    def apply(self, delivery: Delivery) -> None:
        """Fold one record of ``deliveries`` in."""
        waiting = self.pending.get(delivery.tenant, OrderedDict())
        if delivery.status != "retry":
            waiting.pop(delivery.alert, None)
            self._finish(delivery.alert)
            return
        pending = waiting.get(delivery.alert)
        if pending is not None and delivery.attempt >= pending.attempts:
            pending.attempts = delivery.attempt
            pending.due = delivery.next_time

    def drop(self, alert: Alert) -> None:
        """Forget an alert that has nowhere to go; no attempt, no record."""
        self.pending.get(alert.tenant, OrderedDict()).pop(alert.alert, None)
        self._finish(alert.alert)

    def due(self, now: int, busy: set[str]) -> list[PendingAlert]:
        """Give the longest due alert of each tenant that is not ``busy``, so no tenant waits for another."""
        due = []
        for tenant, waiting in self.pending.items():
            ready = [pending for pending in waiting.values() if pending.due <= now]
            if ready and tenant not in busy:
                due.append(min(ready, key=lambda pending: (pending.due, pending.offset)))
        return due

    def low(self, position: int) -> int:
        """Give the offset in ``alerts`` before which everything is delivered or dead; ``position`` is read next."""
        return min((pending.offset for pending in self.open()), default=position)

    def _finish(self, alert: str) -> None:
        self.done[alert] = None
        if len(self.done) > MAX_DONE:
            self.done.popitem(last=False)


def decide(pending: PendingAlert, reply: WebhookReply, now: int, target: str, schedule: Schedule) -> Delivery:
    """Record one attempt. Changes nothing; ``Outbox.apply`` does."""
    attempt = pending.attempts + 1
    common = {"alert": pending.alert.alert, "tenant": pending.alert.tenant, "target": target, "time": now}
    if reply.delivered:
        return Delivery(**common, attempt=attempt, status="delivered", http_status=reply.status)  # type: ignore[arg-type]
    if attempt >= schedule.attempts or reply.status == GONE:
        return Delivery(**common, attempt=attempt, status="dead", http_status=reply.status)  # type: ignore[arg-type]
    asked = min(reply.retry_after_ms, schedule.cap_ms)
    wait = max(schedule.wait(pending.alert.alert, attempt), asked)
    return Delivery(**common, attempt=attempt, status="retry", http_status=reply.status, next_time=now + wait)  # type: ignore[arg-type]


def give_up(pending: PendingAlert, now: int) -> Delivery:
    """Record that an alert is given up without an attempt: no room, or the target was taken away."""
    alert = pending.alert
    return Delivery(alert.alert, alert.tenant, "", now, pending.attempts, "dead")


def target_name(url: str) -> str:
    """Name a target by a digest of 16 hex digits, as webhook URLs often hold a secret in their path."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def body(alert: Alert) -> bytes:
    """Give the payload: Standard Webhooks 1.0.0 envelope, its ``data`` an OCSF 1.5.0 Detection Finding (class 2004).

    A function of the alert alone, so every repeat has the same bytes. Holds no text of any request.
    """
    moment = datetime.fromtimestamp(alert.time / 1000, UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode({"type": "alert.raised", "timestamp": moment, "data": _finding(alert)})


def _finding(alert: Alert) -> dict[str, Any]:
    severity_id, severity = _OCSF_SEVERITY.get(alert.severity, (99, "Other"))
    resources = [{"type": "tenant", "uid": alert.tenant}, {"type": "organisation", "uid": alert.organisation}]
    if alert.principal:
        resources.append({"type": "principal", "uid": alert.principal})
    return {
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401,
        "is_alert": True,
        "time": alert.time,
        "start_time": alert.first_time,
        "end_time": alert.time,
        "count": alert.count,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": 1,
        "status": "New",
        "message": alert.title,
        "finding_info": {
            "uid": alert.alert,
            "title": alert.title,
            "types": [alert.rule],
            "first_seen_time": alert.first_time,
            "last_seen_time": alert.time,
            "analytic": {"type_id": 1, "type": "Rule", "uid": alert.rule, "name": alert.rule},
        },
        "metadata": {
            "version": "1.5.0",
            "uid": alert.alert,
            "tenant_uid": alert.tenant,
            "product": {"name": "Sluice", "vendor_name": "Sluice"},
        },
        "resources": resources,
        "evidences": [{"data": {"request": request}} for request in alert.requests],
    }
