"""A value is shown with the unit, the words and the colour of its panel."""

from __future__ import annotations

from typing import Any

import pytest

from dashboards.panels import PANELS
from dashboards.values import PanelValue, in_unit, panel_value

BY_QUERY = {panel.query: panel for panel in PANELS}


@pytest.mark.parametrize(
    ("query", "column", "value", "text", "color"),
    [
        ("refused_share", "refused", 0.3113207547169811, "31 %", ""),
        ("refused_share", "refused", 0.004, "0.4 %", ""),
        ("refused_share", "refused", None, "nothing decided", ""),
        ("freshness", "age", 6, "6 s", "green"),
        ("freshness", "age", 300, "5.0 min", "dark_orange"),
        ("freshness", "age", 7200, "2.0 h", "red"),
        ("freshness", "age", None, "no record was ever sealed", ""),
        ("alerts_total", "alerts", 0, "0", "green"),
        ("alerts_total", "alerts", 3, "3", "dark_orange"),
        ("decisions_total", "decisions", 1_347, "1,347", ""),
        ("alerts", "severity", 3, "3 high", "dark_orange"),
        ("alerts", "delivery", "delivered", "✔ delivered", "green"),
        ("alerts", "delivery", "dead", "✖ given up", "red"),
        ("alerts", "delivery", "unheard of", "unheard of", ""),
        ("completeness", "state", "complete", "✔ complete", "green"),
        ("completeness", "state", "rows missing", "✖ rows missing", "red"),
        ("precision_by_rule", "precision", 0.75, "75 %", ""),
        ("latency", "p99", 587.2, "0.59 s", ""),
        ("latency", "p50", 80.0, "80 ms", ""),
        ("latency", "p50", None, "", ""),
        ("decisions_per_minute", "admitted", 73.0, "73 req/min", ""),
    ],
)
def test_a_value_is_shown_as_its_panel_shows_it(query: str, column: str, value: Any, text: str, color: str) -> None:
    assert panel_value(BY_QUERY[query], column, value) == PanelValue(text, color)


@pytest.mark.parametrize("unit", sorted({panel.unit for panel in PANELS}))
def test_every_unit_of_a_panel_is_known(unit: str) -> None:
    assert in_unit(2.5, unit)
    assert unit == "short" or in_unit(2.5, unit) != in_unit(2.5, "short")


def test_every_colour_of_a_panel_is_one_that_a_terminal_has() -> None:
    from rich.style import Style

    for panel in PANELS:
        for _, least in panel.steps:
            color = panel_value(panel, "", least if least is not None else 0).color
            assert color == "" or Style.parse(color)
