"""WATCH correlates findings of one partition into alerts. Sans-IO, integers only.

Reads ``findings``, writes ``alerts``. Owns, per rule and subject, the hits of one sliding window. Loses nothing by
losing its memory: an alert is a function of the events of the last ``REREAD_MS`` before it, so a worker that reads
that much again comes to the same alerts, byte for byte (see ``covered``).

A rule fires at the first event of a time bucket (as long as the rule's window) at which the window that ends there
holds enough. So an attack that goes on raises one alert per bucket, and bucket borders hide nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from detectors.accounts.meanings import meaning
from detectors.base import HIGH, MEDIUM
from pipeline.events.messages import Alert, FindingEvent
from pipeline.watch import campaign
from pipeline.watch.alert_ids import alert_id, bucket_of

MINUTE_MS = 60_000
COPYING = "extraction."
"""Beginning of the rules that find an account which copies the model."""
QUOTA_REASONS = frozenset({"rate_limited", "budget_exhausted", "too_many_open"})

MAX_SUBJECTS = 20_000
"""Rule and subject pairs in memory per partition; the one longest without an event goes first."""
MAX_PRINCIPALS = 256
"""Principals remembered per subject."""
MAX_HITS = 64
"""Hits remembered per subject and principal, so a loud principal cannot push the others out."""
MAX_REQUESTS = 20
"""Request ids named in one alert."""
MAX_KNOWN = 50_000
"""Alert ids remembered, the oldest forgotten first; a forgotten one may be written again, with the same bytes."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A rule fires when ``hits`` hits by at least ``principals`` principals fall within ``window_ms``."""

    name: str
    title: str
    severity: int
    window_ms: int
    hits: int
    per: Literal["principal", "tenant"]
    findings: str = ""
    """A finding whose rule id starts so is one hit."""
    reasons: frozenset[str] = frozenset()
    """A refusal for any of these is one hit."""
    principals: int = 1
    account: int = 1
    """Hits that one such finding about an account is, which many requests led to."""

    def weight(self, event: FindingEvent) -> int:
        """Count the hits that this event is."""
        if self.findings:
            matching = [finding for finding in event.findings if finding.rule.startswith(self.findings)]
            return sum(self.account if finding.view == "account" else 1 for finding in matching)
        return int(event.verdict != "admit" and not self.reasons.isdisjoint(event.reasons))


RULES: tuple[AlertRule, ...] = (
    AlertRule(
        "repeated-injection",
        "3 or more injection findings by one principal within 10 minutes",
        HIGH,
        10 * MINUTE_MS,
        hits=3,
        per="principal",
        findings="injection.",
    ),
    AlertRule(
        "recited-texts",
        "3 or more answers to one principal within 10 minutes that recite protected texts or the system prompt",
        HIGH,
        10 * MINUTE_MS,
        hits=3,
        per="principal",
        findings="output.",
    ),
    AlertRule(
        "quota-abuse",
        "20 or more quota refusals over 2 or more principals of one tenant within 5 minutes",
        MEDIUM,
        5 * MINUTE_MS,
        hits=20,
        per="tenant",
        reasons=QUOTA_REASONS,
        principals=2,
    ),
    AlertRule(
        "extraction-campaign",
        "an account that copies the model, or 2 or more extraction findings, in one tenant within 10 minutes",
        HIGH,
        10 * MINUTE_MS,
        hits=2,
        per="tenant",
        findings=COPYING,
        account=2,
    ),
    AlertRule(
        "wrong-keys",
        "60 or more wrong keys from one address within a minute",
        MEDIUM,
        10 * MINUTE_MS,
        hits=1,
        per="principal",
        findings="access.",
    ),
)

LONGEST_MS = max(rule.window_ms for rule in RULES)
LATENESS_MS = 15 * MINUTE_MS
"""How far an event's time may lie before the time it was appended: the longest deadline (10 min) and some more."""
REREAD_MS = max(2 * LONGEST_MS, campaign.BUCKET_MS + campaign.WINDOW_MS) + LATENESS_MS
"""What must be read again before the first unfinished event: a bucket, the window before it, and lateness."""


class Hit(NamedTuple):
    time: int
    weight: int
    request: str
    stage: str


@dataclass(slots=True)
class Subject:
    """One rule has one window over each tenant or principal."""

    clock: int = 0
    """Latest event time; the window is (clock - window_ms, clock]."""
    fired: int = -1
    """Start of the last bucket that had its alert, Unix ms."""
    hits: OrderedDict[str, deque[Hit]] = field(default_factory=OrderedDict)

    def add(self, principal: str, hit: Hit, window_ms: int) -> bool:
        """Count a hit in; False where it is too old or was counted before (findings are sent at least once)."""
        if hit.time <= self.clock - window_ms:
            return False
        line = self.hits.setdefault(principal, deque(maxlen=MAX_HITS))
        if any(known.request == hit.request and known.stage == hit.stage for known in line):
            return False
        line.append(hit)
        self.hits.move_to_end(principal)
        if len(self.hits) > MAX_PRINCIPALS:
            self.hits.popitem(last=False)
        self.clock = max(self.clock, hit.time)
        self._prune(self.clock - window_ms)
        return True

    def _prune(self, until: int) -> None:
        for principal in list(self.hits):
            kept = [hit for hit in self.hits[principal] if hit.time > until]
            if kept:
                self.hits[principal] = deque(kept, MAX_HITS)
            else:
                del self.hits[principal]

    def window(self) -> list[Hit]:
        """Give the hits in the window, oldest first, ties by request."""
        return sorted(hit for line in self.hits.values() for hit in line)


@dataclass(slots=True)
class WatchState:
    """One partition's watch remembers windows by (rule, tenant, principal or empty), and the alerts it has written."""

    subjects: OrderedDict[tuple[str, str, str], Subject] = field(default_factory=OrderedDict)
    shared: campaign.CampaignState = field(default_factory=campaign.CampaignState)
    known: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Ids of the alerts that are written."""

    def subject(self, key: tuple[str, str, str]) -> Subject:
        """Give the window of a rule over a tenant or principal, and make it the latest."""
        subject = self.subjects.setdefault(key, Subject())
        self.subjects.move_to_end(key)
        if len(self.subjects) > MAX_SUBJECTS:
            self.subjects.popitem(last=False)
        return subject

    def remember(self, alert: str) -> None:
        """Take an alert as written."""
        self.known[alert] = None
        if len(self.known) > MAX_KNOWN:
            self.known.popitem(last=False)


def apply(state: WatchState, event: FindingEvent) -> list[Alert]:
    """Fold one event in and give the alerts that it raises, in the order of RULES."""
    if event.signature:
        return campaign.correlate(state.shared, event)
    alerts = []
    for rule in RULES:
        weight = rule.weight(event)
        if weight:
            alert = _correlate(state, rule, event, weight)
            if alert is not None:
                alerts.append(alert)
    return alerts


def replay(events: Iterable[FindingEvent]) -> list[Alert]:
    """Give all alerts of a run of events, from nothing."""
    state = WatchState()
    return [alert for event in events for alert in apply(state, event)]


def covered(alert: Alert, since: int) -> bool:
    """Tell whether reading from the append time ``since`` (Unix ms) on suffices to come to exactly this alert.

    Its bucket began at least one window after ``since``, so every event that could fall into a window of that
    bucket was read. Alerts for which it does not hold were raised by the worker that read that time in full.
    """
    if alert.rule == campaign.RULE:
        return bucket_of(alert.time, campaign.BUCKET_MS) >= since + campaign.WINDOW_MS
    window_ms = next(rule.window_ms for rule in RULES if rule.name == alert.rule)
    return bucket_of(alert.time, window_ms) >= since + window_ms


def _correlate(state: WatchState, rule: AlertRule, event: FindingEvent, weight: int) -> Alert | None:
    principal = event.principal if rule.per == "principal" else ""
    subject = state.subject((rule.name, event.tenant, principal))
    if not subject.add(event.principal, Hit(event.time, weight, event.request, event.stage), rule.window_ms):
        return None
    bucket = bucket_of(subject.clock, rule.window_ms)
    if bucket == subject.fired or len(subject.hits) < rule.principals:
        return None
    hits = subject.window()
    count = sum(hit.weight for hit in hits)
    if count < rule.hits:
        return None
    subject.fired = bucket
    return Alert(
        alert=alert_id(rule.name, event.tenant, principal, bucket),
        time=subject.clock,
        rule=rule.name,
        severity=rule.severity,
        organisation=event.organisation,
        tenant=event.tenant,
        principal=principal,
        title=_title(rule, event),
        count=count,
        first_time=hits[0].time,
        requests=tuple(dict.fromkeys(hit.request for hit in hits))[:MAX_REQUESTS],
    )


def _title(rule: AlertRule, event: FindingEvent) -> str:
    """Say what was correlated and, of an account that copies, what it sends."""
    copying = next((found.rule for found in event.findings if found.rule.startswith(rule.findings)), "")
    return f"{rule.title}: {meaning(copying)}" if rule.findings == COPYING and copying else rule.title
