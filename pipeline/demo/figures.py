"""The figures of each tenant and the alerts of a run, from the sealed log in ClickHouse."""

from __future__ import annotations

from typing import NamedTuple

from pipeline import wiring
from pipeline.config import Settings

COLUMNS = ("tenant", "requests", "admitted", "denied", "reserved", "settled", "findings", "alerts", "p50 ms", "p99 ms")
"""Names of ``TenantFigures`` in the summary."""
UNIDENTIFIED = "(unknown)"
"""Requests whose sender could not be told."""
_FIGURES = """
SELECT tenant,
    countIf(kind = 'decision') AS requests,
    countIf(kind = 'decision' AND verdict = 'admit') AS admitted,
    sumIf(reserved_tokens, kind = 'decision') AS reserved,
    sumIf(input_tokens + output_tokens, kind = 'outcome') AS settled,
    sumIf(length(rules), kind IN ('decision', 'outcome')) AS findings,
    toUInt64(ifNotFinite(round(quantileIf(0.5)(latency_ms, kind = 'outcome')), 0)) AS p50,
    toUInt64(ifNotFinite(round(quantileIf(0.99)(latency_ms, kind = 'outcome')), 0)) AS p99
FROM records
WHERE time >= fromUnixTimestamp64Milli({since:Int64}) AND kind IN ('decision', 'outcome')
GROUP BY tenant ORDER BY tenant
"""
_REASONS = """
SELECT tenant, reason, count() AS times FROM records
WHERE time >= fromUnixTimestamp64Milli({since:Int64}) AND kind = 'decision' AND verdict = 'deny'
GROUP BY tenant, reason ORDER BY times DESC, reason
"""
_ALERTS = """
SELECT rules[1], toInt64(toUnixTimestamp64Milli(time)) FROM records
WHERE kind = 'alert' AND time >= fromUnixTimestamp64Milli({since:Int64})
"""


class TenantFigures(NamedTuple):
    """One tenant's requests and their cost. ``denied`` says how often for which reason; tokens and ms are whole."""

    tenant: str
    requests: int
    admitted: int
    denied: str
    reserved: int
    settled: int
    findings: int
    alerts: int
    p50_ms: int
    p99_ms: int


def tenant_figures(settings: Settings, since: int, alerts: dict[str, int]) -> list[TenantFigures]:
    """The figures of each tenant since a time (Unix ms); ``alerts`` were delivered to its webhook."""
    with wiring.store(settings) as store:
        denied: dict[str, list[str]] = {}
        for tenant, reason, times in store.query(_REASONS, {"since": since}):
            denied.setdefault(tenant, []).append(f"{reason} {times}")
        rows = store.query(_FIGURES, {"since": since})
    figures = []
    for tenant, requests, admitted, *costs in rows:
        reserved, settled, findings, *latencies = costs
        reasons = ", ".join(denied.get(tenant, ["-"]))
        delivered = alerts.get(tenant, 0) if tenant else 0
        counts = (requests, admitted, reasons, reserved, settled, findings, delivered)
        figures.append(TenantFigures(tenant or UNIDENTIFIED, *counts, *latencies))
    return figures


def alerts_since(settings: Settings, since: int) -> list[tuple[str, int]]:
    """Rule and time (Unix ms) of every sealed alert from a time on."""
    with wiring.store(settings) as store:
        return [(str(rule), int(time)) for rule, time in store.query(_ALERTS, {"since": since})]
