"""The panels of the overview dashboard, read by the very queries that Grafana runs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from dashboards.panels import PANELS, Panel
from dashboards.render import QueryScope, raw, render
from dashboards.values import PanelValue, panel_value
from pipeline import terminal, wiring
from pipeline.clock import now_ms
from pipeline.config import Settings

_BUCKET_S = 60


class PanelResult(NamedTuple):
    """One panel and the rows of its query."""

    panel: Panel
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def value(self, row: int, column: str) -> PanelValue:
        """One value with the panel's unit and colour; times in UTC."""
        value = self.rows[row][self.columns.index(column)]
        if isinstance(value, datetime):
            return PanelValue(terminal.time_text(value), "")
        return panel_value(self.panel, column, value)

    def sum(self, column: str) -> int:
        """The sum of a column of counts."""
        index = self.columns.index(column)
        return sum(int(row[index]) for row in self.rows)


def read_panels(settings: Settings, since: int) -> dict[str, PanelResult]:
    """Every panel by the name of its query, from a time (Unix ms) until now, over all tenants."""
    scope = QueryScope(since // 1000, now_ms() // 1000 + 1, _BUCKET_S, {"tenant": ""})
    with wiring.store(settings) as store:
        return {p.query: PanelResult(p, *store.query_named(render(raw(p.query), scope))) for p in PANELS}
