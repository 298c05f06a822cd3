"""The overview as classic dashboard JSON (schemaVersion 42; Grafana 11.6 to 13), made from panels and query files.

    python -m dashboards.build          writes overview.json

The JSON is committed, as Grafana loads it from the folder; a test says when it is not what this file makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dashboards.panels import PANELS, Panel
from dashboards.render import raw

OVERVIEW = Path(__file__).parent / "overview.json"
DATASOURCE_TYPE = "grafana-clickhouse-datasource"
DATASOURCE_UID = "sluice-clickhouse"
PLUGIN_VERSION = "4.20.0"

_TIME_SERIES, _TABLE = 0, 1
"""The plugin's number of a result format; a missing one would mean time series."""


def dashboard() -> dict[str, Any]:
    """The overview as Grafana's classic JSON."""
    return {
        "uid": "sluice-overview",
        "title": "Sluice overview",
        "description": "What was asked, what was decided and why, what it cost, and whether the log is complete.",
        "tags": ["sluice"],
        "schemaVersion": 42,
        "version": 1,
        "editable": False,
        "timezone": "utc",
        "refresh": "30s",
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {"refresh_intervals": ["30s", "1m", "5m"]},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_source_variable(), _tenant_variable()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS, 1)],
    }


def _source_variable() -> dict[str, Any]:
    return {
        "name": "ds",
        "label": "Store",
        "type": "datasource",
        "query": DATASOURCE_TYPE,
        "current": {"text": "Sluice", "value": DATASOURCE_UID},
        "includeAll": False,
        "multi": False,
    }


def _tenant_variable() -> dict[str, Any]:
    return {
        "name": "tenant",
        "label": "Tenant",
        "type": "query",
        "datasource": _datasource(),
        "query": {"refId": "tenants", "queryType": "sql", "rawSql": raw("tenants")},
        "current": {"text": "All", "value": "$__all"},
        "includeAll": True,
        "multi": False,
        "refresh": 2,
        "sort": 0,
    }


def _datasource() -> dict[str, str]:
    return {"type": DATASOURCE_TYPE, "uid": "${ds}"}


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    series = panel.kind == "timeseries"
    target = {
        "refId": "A",
        "datasource": _datasource(),
        "editorType": "sql",
        "queryType": "timeseries" if series else "table",
        "format": _TIME_SERIES if series else _TABLE,
        "pluginVersion": PLUGIN_VERSION,
        "rawSql": raw(panel.query),
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "gridPos": {"x": panel.x, "y": panel.y, "w": panel.w, "h": panel.h},
        "datasource": _datasource(),
        "targets": [target],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = panel.steps or (("text", None),)
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "noValue": panel.empty,
        "thresholds": {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]},
    }
    if panel.kind == "timeseries":
        defaults["min"] = 0
        defaults["custom"] = {"drawStyle": "line", "lineInterpolation": "stepAfter", "fillOpacity": 10}
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind != "stat":
        return panel.options
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "value"}


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    return [
        {"matcher": {"id": "byName", "options": column}, "properties": [{"id": name, "value": value}]}
        for column, name, value in panel.overrides
    ]


def text() -> str:
    """The committed file."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OVERVIEW.write_text(text(), "utf-8")
