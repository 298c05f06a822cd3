"""The result of a demo run: its verdict, and the whole of it in tables or as one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline import terminal
from pipeline.audit.faults import Report
from pipeline.clickhouse.auditor import as_document
from pipeline.demo.clients import TrafficReport
from pipeline.demo.figures import COLUMNS, TenantFigures
from pipeline.demo.panels import PanelResult
from pipeline.demo.people import PLANS
from pipeline.demo.reconcile import Equation


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that a run gave. ``panels`` are by the name of their query."""

    tenants: Sequence[TenantFigures]
    equations: Sequence[Equation]
    audit: Report
    traffic: TrafficReport
    panels: Mapping[str, PanelResult]

    @property
    def ok(self) -> bool:
        """True where every count reconciles, the log verifies, and callers saw what they had to."""
        return all(equation.holds for equation in self.equations) and self.audit.ok and not self.traffic.surprises

    def document(self) -> dict[str, object]:
        """One JSON document; ``ok`` is the meaning of the exit code."""
        return {
            "ok": self.ok,
            "tenants": [dict(zip(COLUMNS, row, strict=True)) for row in self.tenants],
            "reconciliation": [{**equation._asdict(), "holds": equation.holds} for equation in self.equations],
            "audit": as_document(self.audit),
            "doors": dict(self.traffic.calls),
            "answers": self.traffic.samples,
            "dashboard": {
                result.panel.title: [dict(zip(result.columns, row, strict=True)) for row in result.rows]
                for result in self.panels.values()
            },
            "surprises": self.traffic.surprises,
        }

    def _titled(self) -> list[tuple[str, PanelResult]]:
        return [(result.panel.title, result) for result in self.panels.values()]

    def print_tables(self) -> None:
        """Print every panel, every equation and every surprise."""
        stats = {title: result for title, result in self._titled() if result.panel.kind == "stat"}
        _section("dashboard", ("panel", "value"), [(title, next(_cells(result))[0]) for title, result in stats.items()])
        for title, result in self._titled():
            if title not in stats:
                _section(title, result.columns, list(_cells(result)))
        _section("some answers", ("asked", "answered"), list(self.traffic.samples.items()))
        _section("calls by kind of client", ("client", "calls"), sorted(self.traffic.calls.items()))
        plans = ", ".join(f"{tenant} on {plan}" for tenant, plan in PLANS.items())
        _section(f"tenants ({plans}); tokens reserved and settled", COLUMNS, self.tenants)
        verdicts = [(each.name, each.left, each.right, "yes" if each.holds else "NO") for each in self.equations]
        _section("reconciliation", ("equation", "left", "right", "holds"), verdicts)
        if not sys.stdout.isatty():
            print()
        terminal.audit_report(self.audit)
        _section("surprises", ("surprise",), [(surprise,) for surprise in self.traffic.surprises])


def _cells(result: PanelResult) -> Iterator[list[object]]:
    for number, row in enumerate(result.rows):
        values = [result.value(number, column) for column in result.columns]
        yield [terminal.Colored(value, shown.text, shown.color) for value, shown in zip(row, values, strict=True)]


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    if not sys.stdout.isatty():
        print(f"\n{title}")
    terminal.table(title, columns, list(rows))
