"""What the demo tells in the end, in tables or as one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import terminal
from pipeline.audit.faults import Report
from pipeline.clickhouse.auditor import as_document
from pipeline.demo.account import Equation
from pipeline.demo.board import PanelAnswer
from pipeline.demo.cast import PLANS
from pipeline.demo.traffic import TrafficSeen

COLUMNS = ("tenant", "requests", "admitted", "denied", "reserved", "settled", "findings", "alerts", "p50 ms", "p99 ms")
_ROWS = 8
_SURPRISES = 20


@dataclass(frozen=True, slots=True)
class Summary:
    tenants: Sequence[tuple[Any, ...]]
    lines: Sequence[Equation]
    report: Report
    seen: TrafficSeen
    board: Sequence[PanelAnswer]

    @property
    def ok(self) -> bool:
        return all(line.holds for line in self.lines) and self.report.ok and not self.seen.surprises

    def print_tables(self) -> None:
        """The dashboard's figures first, the verdict last."""
        stats = [(shown.title, *shown.rows[0][:1]) for shown in self.board if shown.kind == "stat" and shown.rows]
        _section("dashboard", ("panel", "value"), stats)
        for shown in self.board:
            if shown.kind != "stat":
                _section(shown.title, shown.columns, shown.rows[:_ROWS])
        _section("some answers", ("asked", "answered"), list(self.seen.samples.items()))
        _section("doors", ("door", "calls"), sorted(self.seen.doors.items()))
        plans = ", ".join(f"{tenant} on {plan}" for tenant, plan in PLANS.items())
        _section(f"tenants ({plans}); tokens reserved and settled", COLUMNS, self.tenants)
        verdicts = [(line.name, line.left, line.right, "yes" if line.holds else "NO") for line in self.lines]
        _section("reconciliation", ("equation", "left", "right", "holds"), verdicts)
        print()
        terminal.audit_report(self.report)
        for surprise in self.seen.surprises[:_SURPRISES]:
            print(f"SURPRISE {surprise}")
        print("every count reconciles" if self.ok else "the demo did not end as it should: see NO, FAULT, SURPRISE")

    def print_json(self) -> None:
        """One document; ``ok`` is the exit code's meaning."""
        terminal.document(
            {
                "ok": self.ok,
                "tenants": [dict(zip(COLUMNS, row, strict=True)) for row in self.tenants],
                "reconciliation": [{**line._asdict(), "holds": line.holds} for line in self.lines],
                "audit": as_document(self.report),
                "doors": dict(self.seen.doors),
                "answers": self.seen.samples,
                "dashboard": {s.title: [dict(zip(s.columns, row, strict=True)) for row in s.rows] for s in self.board},
                "surprises": self.seen.surprises,
            }
        )


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    if not sys.stdout.isatty():
        print(f"\n{title}")
    terminal.table(title, columns, rows)
