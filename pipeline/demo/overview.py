"""The summary on one screen: the verdict first, then the figures, in at most thirty lines.

Lists that are longer say how many they leave out; a cut text ends in an ellipsis; sections that do not fit are named.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.text import Text

from dashboards.values import in_unit
from pipeline import terminal
from pipeline.demo.figures import TenantFigures
from pipeline.demo.people import PLANS
from pipeline.demo.summary import Summary

MAX_LINES = 30
_MIN_WIDTH, _MAX_WIDTH = 60, 120
_MAX_FAILURES = 3
"""Failures listed under one line of the verdict."""
_MAX_ALERTS = 4
_SAMPLES = 2
_LABEL = 10
Section = list[Text]


class Check(NamedTuple):
    """One part of the verdict: it holds where nothing failed. ``failures`` may hold the first of ``total`` only."""

    name: str
    text: str
    failures: list[str]
    total: int


def print_overview(summary: Summary, *, verdict_only: bool = False) -> None:
    """Print the summary on one screen, or its verdict alone where all of it follows."""
    screen = terminal.console()
    for line in verdict(summary, screen.width) if verdict_only else overview(summary, screen.width):
        screen.print(line, soft_wrap=True)


def overview(summary: Summary, width: int) -> list[Text]:
    """At most ``MAX_LINES`` lines for a screen of this width."""
    width = max(_MIN_WIDTH, min(width, _MAX_WIDTH))
    sections = {
        "dashboard": _dashboard(summary, width),
        "alerts": _alerts(summary, width),
        "tenants": _tenants(summary.tenants),
        "answers": _answers(summary, width),
    }
    lines = verdict(summary, width)
    left_out = []
    for name, section in sections.items():
        # two lines are kept for the end
        if len(lines) + 1 + len(section) <= MAX_LINES - 2:
            lines += [Text(), *section]
        else:
            left_out.append(name)
    last = "show everything: --full, or --json for programs; times are UTC"
    if left_out:
        last = f"not shown: {', '.join(left_out)}; show everything: --full, --json"
    return [*lines, Text(), Text(last, "dim")]


def verdict(summary: Summary, width: int) -> list[Text]:
    """The verdict, with a line for each thing that was checked and the first failures of it."""
    text = "The demo ended as it should." if summary.ok else "The demo did not end as it should."
    lines = [_marked(text, summary.ok, "bold green" if summary.ok else "bold red")]
    for check in _checks(summary):
        lines.append(Text("  ") + _marked(f"{check.name:{_LABEL}}{check.text}", not check.failures, ""))
        lines += [_cut(Text(f"      {failure}"), width) for failure in check.failures[:_MAX_FAILURES]]
        unlisted = check.total - _MAX_FAILURES
        if unlisted > 0:
            lines.append(Text(f"      and {unlisted:,} more: --full"))
    return lines


def _checks(summary: Summary) -> list[Check]:
    audit = summary.audit
    traffic = summary.traffic
    failed = [equation for equation in summary.equations if not equation.holds]
    holding = len(summary.equations) - len(failed)
    return [
        Check(
            "counts",
            f"{holding} of {len(summary.equations)} equations between Kafka's log and ClickHouse hold",
            [f"{each.name}: {each.left:,} and {each.right:,}" for each in failed],
            len(failed),
        ),
        Check(
            "log",
            f"{audit.rows:,} rows in {audit.batches:,} signed batches, {audit.faults_total:,} faults",
            [f"{fault.origin} batch {fault.batch} leaf {fault.leaf}: {fault.what}" for fault in audit.faults],
            audit.faults_total,
        ),
        Check(
            "callers",
            f"{sum(traffic.calls.values()):,} calls by {len(traffic.calls)} kinds of client, "
            f"{len(traffic.surprises)} surprises",
            traffic.surprises,
            len(traffic.surprises),
        ),
    ]


def _marked(text: str, ok: bool, style: str) -> Text:
    return Text.assemble(("✔ ", "green") if ok else ("✖ ", "red"), (text, style))


def _dashboard(summary: Summary, width: int) -> Section:
    panels = summary.panels
    stats = Text("  ")
    for query in ("freshness", "decisions_total", "refused_share", "alerts_total"):
        result = panels[query]
        shown = result.value(0, result.columns[0])
        stats.append(f"{result.panel.title} ").append(shown.text, f"bold {shown.color}".strip()).append("   ")
    stats.rstrip()
    refusals = panels["refusals_by_reason"]
    rules = panels["findings_by_rule"]
    deliveries = panels["deliveries"]
    refused = [(row[0], int(row[1])) for row in refusals.rows]
    findings = [(row[0], int(row[1]) + int(row[2])) for row in rules.rows]
    attempts = ", ".join(
        f"{deliveries.sum(name)} {name.replace('_', ' ')}" for name in ("delivered", "failed", "given_up")
    )
    return [
        Text("Dashboard", "bold"),
        stats,
        *_listed("Refusals", refused, refusals.panel.empty, width),
        *_listed("Findings", findings, rules.panel.empty, width),
        Text(f"  {'Webhooks':{_LABEL}}{attempts}"),
    ]


def _listed(label: str, counts: Iterable[tuple[str, int]], empty: str, width: int) -> Section:
    """Counts over two lines at most, the greatest first; the number of those left out is told."""
    # a count stays beside its name
    items = [f"{name}\u00a0{count:,}" for name, count in sorted(counts, key=lambda item: (-item[1], item[0]))]
    lines = [empty]
    for listed in range(len(items), 0, -1):
        more = f", and\u00a0{len(items) - listed}\u00a0more" if listed < len(items) else ""
        lines = textwrap.wrap(", ".join(items[:listed]) + more, width - 2 - _LABEL, break_on_hyphens=False)
        if len(lines) <= 2:
            break
    labels = [label, *[""] * (len(lines) - 1)]
    return [Text(f"  {name:{_LABEL}}{line}".replace("\u00a0", " ")) for name, line in zip(labels, lines, strict=True)]


def _alerts(summary: Summary, width: int) -> Section:
    result = summary.panels["alerts"]
    if not result.rows:
        return [Text("Alerts", "bold"), Text(f"  {result.panel.empty}")]
    columns = ("raised", "severity", "rule", "tenant", "delivery")
    listed = range(min(len(result.rows), _MAX_ALERTS))
    rows = [[result.value(row, column) for column in columns] for row in listed]
    cells = [[Text(shown.text, shown.color) for shown in row] for row in rows]
    for row in cells:
        # the day is today's
        row[0] = row[0][-len("10:31:08Z") :]
    lines = [_cut(line, width) for line in _aligned(cells)]
    unlisted = len(result.rows) - _MAX_ALERTS
    more = [Text(f"  and {unlisted} more: --full")] if unlisted > 0 else []
    return [Text("Alerts", "bold"), *lines, *more]


def _tenants(tenants: Iterable[TenantFigures]) -> Section:
    rows = [["Tenant", "plan", "requests", "admitted", "refused", "tokens", "p50", "p99"]]
    for each in tenants:
        counts = (each.requests, each.admitted, each.requests - each.admitted, each.settled)
        times = (each.p50_ms, each.p99_ms) if each.admitted else ()
        row = [each.tenant, PLANS.get(each.tenant, "-"), *(f"{count:,}" for count in counts)]
        rows.append([*row, *(in_unit(time, "ms") for time in times), *["-"] * (2 - len(times))])
    lines = _aligned([[Text(cell) for cell in row] for row in rows], left=2, indent=0)
    lines[0].stylize("bold")
    return lines


def _aligned(rows: Sequence[Sequence[Text]], left: int = 99, indent: int = 2) -> Section:
    """Cells under one another; the first ``left`` columns to the left, figures to the right."""
    widths = [max(row[column].cell_len for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        line = Text(" " * indent)
        for column, cell in enumerate(row):
            pad = " " * (widths[column] - cell.cell_len)
            line.append_text(cell + Text(pad) if column < left else Text(pad) + cell).append("  ")
        line.rstrip()
        lines.append(line)
    return lines


def _answers(summary: Summary, width: int) -> Section:
    samples = list(summary.traffic.samples.items())[:_SAMPLES]
    widest = max((len(question) for question, _ in samples), default=0)
    return [
        Text("Answers", "bold"),
        *(
            _cut(
                Text(f"  {terminal.harmless(question):{widest}}  {terminal.harmless(' '.join(answer.split()))}"), width
            )
            for question, answer in samples
        ),
    ]


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
