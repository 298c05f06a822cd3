"""A panel's values as its readers see them: Grafana's units, texts and colours, for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from dashboards.panels import Panel

_COLORS = {"text": "", "orange": "dark_orange"}
"""Grafana's names of colours that a terminal calls otherwise."""


class PanelValue(NamedTuple):
    """A value's text and the name of its colour, empty where it has none."""

    text: str
    color: str


def panel_value(panel: Panel, column: str, value: Any) -> PanelValue:
    """Format one value of a panel's column by the panel's unit, mappings and thresholds."""
    if value is None:
        return PanelValue(panel.empty if panel.kind == "stat" else "", "")
    for mapping in _overrides(panel, column, "mappings"):
        mapped = _mapped(mapping, str(value))
        if mapped is not None:
            return mapped
    unit = next(_overrides(panel, column, "unit"), panel.unit)
    color = _threshold_color(panel, value) if panel.kind == "stat" else ""
    return PanelValue(in_unit(value, unit), color)


def in_unit(value: Any, unit: str) -> str:
    """A number with its unit: percentunit, s, ms, reqpm, or a plain one with separators."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    match unit:
        case "percentunit":
            percent = value * 100
            return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %"
        case "ms":
            return f"{value:.0f} ms" if value < 100 else in_unit(value / 1000, "s")
        case "s":
            return _seconds(value)
        case "reqpm":
            return f"{_plain(value)} req/min"
    return _plain(value)


def _seconds(value: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.1f} {name}"
    return f"{value:.0f} s" if value == int(value) else f"{value:.2f} s"


def _plain(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,.2f}"


def _overrides(panel: Panel, column: str, name: str) -> Iterator[Any]:
    for wanted, override, value in panel.overrides:
        if (wanted, override) == (column, name):
            yield from value if name == "mappings" else [value]


def _mapped(mapping: dict[str, Any], value: str) -> PanelValue | None:
    options = mapping["options"]
    if mapping["type"] == "regex":
        pattern = re.compile(options["pattern"])
        if not pattern.match(value):
            return None
        result = options["result"]
        return PanelValue(pattern.sub(result["text"].replace("$", "\\"), value), _color(result["color"]))
    if value not in options:
        return None
    return PanelValue(options[value]["text"], _color(options[value]["color"]))


def _threshold_color(panel: Panel, value: Any) -> str:
    reached = [color for color, least in panel.steps if least is None or value >= least]
    return _color(reached[-1]) if reached else ""


def _color(name: str) -> str:
    return _COLORS.get(name, name)
