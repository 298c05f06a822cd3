"""The panels of the overview: which query, drawn how, where. Registry; ``build`` makes the JSON from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

WIDTH = 24
Kind = Literal["stat", "timeseries", "barchart", "table"]


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; ``query`` is the file's name. Grid units: 24 to a row, 30 pixels high each."""

    query: str
    kind: Kind
    title: str
    description: str
    x: int
    y: int
    w: int
    h: int
    unit: str = "short"
    empty: str = "none in this time range"
    """Shown in place of Grafana's "No data", which does not say whether that is good."""
    options: dict[str, Any] = field(default_factory=dict)
    steps: tuple[tuple[str, float | None], ...] = ()
    """Threshold colours and the values from which they hold."""
    overrides: tuple[tuple[str, str, Any], ...] = ()
    """Column, property, value."""


_STATES: dict[str, Any] = {
    "type": "value",
    "options": {"complete": {"text": "✔ complete", "color": "green", "index": 0}},
}
_MISSING: dict[str, Any] = {
    "type": "regex",
    "options": {"pattern": "^(?!complete$)(.*)$", "result": {"text": "✖ $1", "color": "red", "index": 1}},
}
_SEVERITIES: dict[str, Any] = {
    "type": "value",
    "options": {
        str(n): {"text": text, "color": color, "index": n}
        for n, (text, color) in enumerate(
            [("1 low", "blue"), ("2 medium", "yellow"), ("3 high", "orange"), ("4 critical", "red")], 1
        )
    },
}
_DELIVERIES: dict[str, Any] = {
    "type": "value",
    "options": {
        "delivered": {"text": "✔ delivered", "color": "green", "index": 0},
        "retry": {"text": "↻ failed, again later", "color": "orange", "index": 1},
        "dead": {"text": "✖ given up", "color": "red", "index": 2},
        "none": {"text": "none on record", "color": "text", "index": 3},
    },
}
_STACKED = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi"}}

PANELS: tuple[Panel, ...] = (
    Panel(
        "freshness",
        "stat",
        "Newest record",
        "Age of the newest sealed record. While it grows, the panels beside it show a log that stands still, "
        "and 0 may mean that nothing was seen.",
        0,
        0,
        6,
        4,
        unit="s",
        empty="no record was ever sealed",
        steps=(("green", None), ("orange", 300), ("red", 3600)),
    ),
    Panel("decisions_total", "stat", "Decided", "Requests decided in the time range.", 6, 0, 6, 4),
    Panel(
        "refused_share",
        "stat",
        "Refused",
        "Part of the decided requests that was refused, for any reason.",
        12,
        0,
        6,
        4,
        unit="percentunit",
        empty="nothing decided",
    ),
    Panel(
        "alerts_total",
        "stat",
        "Alerts",
        "Alerts raised in the time range.",
        18,
        0,
        6,
        4,
        steps=(("green", None), ("orange", 1)),
    ),
    Panel(
        "decisions_per_minute",
        "timeseries",
        "Decisions per minute",
        "Admitted and refused requests per minute. Quiet intervals count as 0.",
        0,
        4,
        16,
        8,
        unit="reqpm",
        options=_STACKED,
    ),
    Panel(
        "refusals_by_reason",
        "barchart",
        "Refusals by reason",
        "First reason of each refusal; what each means and what the caller was told is in pipeline/events/reasons.py.",
        16,
        4,
        8,
        8,
        empty="no refusals in this time range",
        options={"orientation": "horizontal", "xField": "reason", "legend": {"showLegend": False}},
    ),
    Panel(
        "findings_by_rule",
        "barchart",
        "Findings by rule",
        "Requests in which a detection rule fired: in the prompt, or in the answer.",
        0,
        12,
        12,
        9,
        empty="no findings in this time range",
        options={"orientation": "horizontal", "xField": "rule", "stacking": "normal"},
    ),
    Panel(
        "alerts",
        "table",
        "Newest alerts",
        "The newest 200 alerts of the time range, and the newest attempt to deliver each.",
        12,
        12,
        12,
        9,
        empty="no alerts in this time range",
        overrides=(
            ("severity", "mappings", [_SEVERITIES]),
            ("severity", "custom.cellOptions", {"type": "color-text"}),
            ("delivery", "mappings", [_DELIVERIES]),
            ("delivery", "custom.cellOptions", {"type": "color-text"}),
        ),
    ),
    Panel(
        "latency",
        "timeseries",
        "Latency of finished requests",
        "From the request's record to the completion's, half and 99 of 100; and to the first token. "
        "Gaps are intervals in which none finished.",
        0,
        21,
        12,
        8,
        unit="ms",
        empty="no request finished in this time range",
        options=_STACKED,
        overrides=(("p99", "custom.lineWidth", 2),),
    ),
    Panel(
        "tokens_by_tenant",
        "table",
        "Tokens by tenant",
        "Input and output tokens as charged, and how many runs they are from.",
        12,
        21,
        12,
        8,
        empty="no request ended in this time range",
    ),
    Panel(
        "completeness",
        "table",
        "Completeness of the log",
        "Each log over its whole history: do the stored rows match the signed manifests, has each admission at most "
        "one outcome. A batch that is being written can show for one refresh. Proof: sluice audit verify.",
        0,
        29,
        16,
        9,
        empty="no batch was ever sealed",
        overrides=(
            ("state", "mappings", [_STATES, _MISSING]),
            ("state", "custom.cellOptions", {"type": "color-text"}),
        ),
    ),
    Panel(
        "deliveries",
        "timeseries",
        "Webhook attempts",
        "Attempts to deliver alerts, by what they came to. Quiet intervals count as 0.",
        16,
        29,
        8,
        9,
        options=_STACKED,
    ),
    Panel(
        "risk_per_minute",
        "timeseries",
        "Risk of decisions",
        "Decisions with findings, by the risk of the worst one: its confidence in percent, weighed by its severity.",
        0,
        38,
        12,
        9,
        unit="reqpm",
        options=_STACKED,
    ),
    Panel(
        "precision_by_rule",
        "table",
        "Precision by rule",
        "Of the requests that analysts labelled (sluice label), how many were attacks, for each rule that fired.",
        12,
        38,
        12,
        9,
        empty="no request of this time range was labelled",
        overrides=(("precision", "unit", "percentunit"),),
    ),
)
