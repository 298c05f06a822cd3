"""A plan says what findings and accounts come to: a refusal and its reason, an answer step by step, or a quotation."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.base import Finding, risk
from pipeline.admit import policy
from pipeline.events.control import Plan, Principal, Tenant


def finding(rule: str, severity: int = 3, confidence: int = 90, start: int = 0, end: int = 0, turn: int = 0) -> Finding:
    return Finding(rule, severity, confidence, start, end, "raw", turn)


OVERRIDE, SCORE = finding("injection.override"), finding(policy.SCORED, 2, 70)
UNREAD, PHONE = finding("detector.timeout"), finding("pii.PHONE", 1)


@pytest.mark.parametrize(
    ("plan", "findings", "reason"),
    [
        ({}, (PHONE,), ""),
        ({}, (OVERRIDE,), "injection"),
        ({}, (SCORE,), ""),
        ({"block_confidence": 70}, (SCORE,), "injection"),
        ({"block_confidence": 71}, (SCORE,), ""),
        ({"block_confidence": 71}, (finding(policy.SCORED, 4, 60),), ""),
        ({"block_severity": 5}, (OVERRIDE,), ""),
        ({}, (UNREAD,), "unscreened"),
        ({"unscreened": "admit"}, (UNREAD,), ""),
        ({"unscreened": "admit"}, (UNREAD, OVERRIDE), "injection"),
    ],
)
def test_the_reason_is_the_plans(plan: dict[str, Any], findings: Any, reason: str) -> None:
    assert policy.refusal(Plan(id="p", **plan), findings) == reason


PLANTED = finding("injection.score", 3, 97, 4, 20, turn=1)
TOKEN = finding("injection.frame.chat-template-token", 4, 98, 30, 40, turn=1)


@pytest.mark.parametrize(
    ("documents", "findings", "reason", "blanks", "quotes"),
    [
        ("neutralise", (PLANTED,), "", (), ((1, 4, 20),)),
        ("neutralise", (PLANTED, TOKEN), "", ((1, 30, 40),), ((1, 4, 20),)),
        ("neutralise", (finding("injection.score", 1, 40, 4, 20, turn=1),), "", (), ()),
        ("blank", (PLANTED,), "", ((1, 4, 20),), ()),
        ("refuse", (PLANTED,), "injection", (), ()),
        ("neutralise", (PLANTED, OVERRIDE), "injection", (), ((1, 4, 20),)),
        ("neutralise", (finding("detector.timeout", turn=1),), "unscreened", (), ()),
    ],
)
def test_a_finding_in_a_document_refuses_under_a_plan_that_says_so(
    documents: Any, findings: Any, reason: str, blanks: Any, quotes: Any
) -> None:
    plan = Plan(id="p", documents=documents)
    assert policy.refusal(plan, findings, (1,)) == reason
    assert policy.masked_spans(plan, findings, (1,)) == blanks
    assert policy.quoted_spans(plan, findings, (1,)) == quotes
    shadow = Plan(id="p", documents=documents, shadow=True)
    assert policy.masked_spans(shadow, findings, (1,)) == policy.quoted_spans(shadow, findings, (1,)) == ()


def test_a_refusal_tells_family_place_and_severity() -> None:
    plan = Plan(id="p")
    said = (finding("injection.override.ignore-previous", 3, 90, turn=2), finding(policy.SCORED, 3, 99, turn=2))
    assert policy.told(plan, said) == "injection.override in messages[2], severity 3"
    assert policy.told(plan, said[1:]) == "injection.score in messages[2], severity 3"
    assert policy.told(plan, said, (2,)) == policy.told(plan, (PHONE,)) == ""


def test_a_tenants_own_threshold_is_on_the_score_that_holds_what_rules_said() -> None:
    said = (finding(policy.SCORED, 3, 80), OVERRIDE)
    assert policy.refusal(Plan(id="p", block_confidence=90), said) == ""
    assert policy.refusal(Plan(id="p", block_confidence=80), said) == "injection"
    assert policy.refusal(Plan(id="p", block_confidence=90), (TOKEN,)) == "injection"


@pytest.mark.parametrize(
    ("plan", "known", "stands", "answered"),
    [
        ({}, "judged", "observe", "observe"),
        ({}, "judged", "block", "observe"),
        ({"extraction": "block"}, "judged", "block", "block"),
        ({"extraction": "conceal"}, "judged", "block", "conceal"),
        ({"extraction": "conceal"}, "judged", "throttle", "throttle"),
        ({"extraction": "observe"}, "judged", "review", "observe"),
        ({"extraction": "block", "shadow": True}, "judged", "review", "observe"),
        ({"extraction": "block"}, "cleared", "block", "observe"),
        ({"extraction": "observe", "shadow": True}, "confirmed", "observe", "block"),
    ],
)
def test_an_account_is_answered_as_plan_and_analyst_say(
    plan: dict[str, Any], known: Any, stands: Any, answered: str
) -> None:
    principal = Principal(id="app", tenant="acme", extraction=known)
    for calibrated in (0, 1_790_000_000_000):
        keys = {"data_key": "-", "hpke_public": "-", "hpke_private": "-"}
        tenant = Tenant(id="acme", organisation="acme", plan="p", calibrated=calibrated, **keys)  # type: ignore[arg-type]
        expected = answered if calibrated or known != "judged" else "observe"
        assert policy.answered(Plan(id="p", **plan), tenant, principal, stands) == expected


def test_quotas_are_asked_before_the_account_is_read() -> None:
    assert [policy.counts("deny", (reason,)) for reason in ("rate_limited", "throttled", "unsigned")] == [False] * 3
    assert policy.counts("admit", ())
    assert all(policy.counts("deny", (reason,)) for reason in policy.WITHHELD)


def test_risk_is_the_worst_finding_weighed() -> None:
    assert risk(()) == 0
    assert risk((PHONE, SCORE, OVERRIDE)) == 67
    assert risk((finding("x", 4, 100),)) == 100


def test_blanks_are_merged_in_order_and_only_what_the_plan_names() -> None:
    found = [
        finding("injection.b", start=8, end=12, turn=1),
        finding("injection.a", start=5, end=9, turn=1),
        finding("injection.a", start=0, end=3),
        finding("pii.PHONE", start=20, end=30),
        finding("injection.whole"),
    ]
    assert policy.masked_spans(Plan(id="p", blank=("injection.",)), found) == ((0, 0, 3), (1, 5, 12))
    assert policy.masked_spans(Plan(id="p"), found) == ()
