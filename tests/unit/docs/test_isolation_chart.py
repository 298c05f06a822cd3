"""The chart of isolation is well formed, true to its rows, and says what the page beside it says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.bench.isolation_chart import draw

INFERENCE = Path(__file__).parents[3] / "inference"
SVG = "{http://www.w3.org/2000/svg}"


def bars(text: str) -> list[float]:
    return [float(bar.get("width", "")) for bar in ET.fromstring(text).iter(f"{SVG}rect") if bar.get("width") != "100%"]


def row(what: str, value: float) -> dict[str, object]:
    return {"figure": "isolation", "what": what, "load": "a < b", "value": value, "unit": "ms"}


def test_bars_are_in_proportion_and_other_figures_are_left_out() -> None:
    rows = [row("shared, without flood, p50", 50.0), row("shared, beside the flood, p50", 200.0)]
    other = {**row("shared, flood", 3.0), "unit": "answers/s"}
    short, long = bars(draw({"cores": 2, "machine": "m", "rows": [*rows, other]}))
    assert long == pytest.approx(4 * short, rel=0.01)


def test_without_rows_it_says_what_to_run() -> None:
    with pytest.raises(ValueError, match="isolation --json"):
        draw({"cores": 2, "machine": "m", "rows": []})


def test_the_page_tells_the_figures_of_the_chart() -> None:
    chart, page = (INFERENCE / "isolation.svg").read_text(), (INFERENCE / "README.md").read_text()
    assert len(bars(chart)) == 8
    drawn = set(re.findall(r"([\d,]+) ms</text>", chart))
    lines = re.findall(r"^\| `.*ms.*$", page, re.MULTILINE)
    told = {cell for line in lines for cell in re.findall(r"([\d,]+) ms", line)}
    assert drawn == told
