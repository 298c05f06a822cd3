"""A summary as a run of the demo gives it, with any number of failures."""

from __future__ import annotations

from datetime import UTC, datetime

from dashboards.panels import PANELS
from pipeline.audit.faults import Fault, Report
from pipeline.demo.clients import TrafficReport
from pipeline.demo.figures import TenantFigures
from pipeline.demo.panels import PanelResult
from pipeline.demo.reconcile import Equation
from pipeline.demo.summary import Summary

RAISED = datetime(2026, 12, 1, 10, 31, 8, 730_000, UTC)
ROWS: dict[str, tuple[tuple[str, ...], list[tuple[object, ...]]]] = {
    "freshness": (("age",), [(6,)]),
    "decisions_total": (("decisions",), [(106,)]),
    "refused_share": (("refused",), [(0.3113207547169811,)]),
    "alerts_total": (("alerts",), [(3,)]),
    "refusals_by_reason": (("reason", "refusals"), [("rate_limited", 24), ("injection", 5)]),
    "findings_by_rule": (("rule", "prompts", "answers"), [("injection.score", 5, 0), ("pii.cn_id", 1, 1)]),
    "deliveries": (("time", "delivered", "failed", "given_up"), [(RAISED, 2, 0, 0), (RAISED, 1, 0, 0)]),
    "alerts": (
        ("raised", "severity", "rule", "tenant", "delivery"),
        [(RAISED, 3, "extraction-campaign", "acme", "delivered"), (RAISED, 2, "quota-abuse", "initech", "retry")],
    ),
}


def make_summary(failures: int = 0, rules: int = 0, alerts: int = 0) -> Summary:
    """A summary in which so many equations, faults and callers failed, with so many more rules and alerts."""
    equations = [Equation(f"equation {n} = {n}", n, n) for n in range(7)]
    equations += [Equation(f"failed {n} = {n + 1}", n, n + 1) for n in range(failures)]
    faults = tuple(Fault("g1/decisions/0", n, n, "a leaf that is not the row's") for n in range(min(failures, 20)))
    kinds: dict[str, int] = {}
    account = (15, 15, 251, 0, 15, kinds, 73, 33, 73, 0, 0, 179, 0)
    traffic = TrafficReport()
    traffic.calls.update({"openai": 99, "kafka": 13})
    traffic.samples |= {"What is a dog?": "A dog is a member of the genus Canis. " * 9, "b": "one\ntwo\x1b[31m"}
    traffic.surprises += [f"acme-app by openai: expected an answer, got fault number {n}" for n in range(failures)]
    panels = {panel.query: PanelResult(panel, *ROWS.get(panel.query, (("time",), []))) for panel in PANELS}
    extra = [(f"injection.override.rule-number-{n}", 1, 0) for n in range(rules)]
    found = panels["findings_by_rule"]
    panels["findings_by_rule"] = found._replace(rows=[*found.rows, *extra])
    raised = panels["alerts"]
    panels["alerts"] = raised._replace(rows=[*raised.rows, *raised.rows[:1] * alerts])
    tenants = [
        TenantFigures("(unknown)", 3, 0, "malformed 1, unknown_key 1, unsigned 1", 0, 0, 0, 0, 0, 0),
        TenantFigures("acme", 42, 42, "-", 3_598, 1_347, 1, 1, 70, 498),
        TenantFigures("globex", 27, 21, "injection 5, misrouted 1", 1_280, 636, 19, 1, 242, 532),
        TenantFigures("initech", 34, 10, "rate_limited 24", 250, 150, 0, 1, 42, 1_068),
    ]
    return Summary(tenants, equations, Report(*account, faults, failures), traffic, panels)
