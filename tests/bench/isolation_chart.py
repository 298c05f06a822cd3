"""``python -m tests.bench.isolation_chart BENCH_JSON SVG``: the isolation figure as a chart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

WIDTH, BAR, LEFT, RIGHT = 760, 22, 250, 110
_TONES = {"without flood": "#8fb8de", "beside the flood": "#d97b66"}


def draw(document: dict[str, Any]) -> str:
    """Bars in milliseconds, one for each latency row of the figure ``isolation``."""
    rows = [row for row in document["rows"] if row["figure"] == "isolation" and row["unit"] == "ms"]
    if not rows:
        raise ValueError("expected rows of the figure isolation; run: python -m tests.bench isolation --json FILE")
    longest = max(row["value"] for row in rows)
    loads = [f"{row['what'].split(',')[0]}: {row['load']}" for row in rows]
    machine = f"{document['cores']} cores, {document['machine']}; one machine runs the whole stack"
    notes = [*dict.fromkeys(loads), machine]
    height = 48 + (BAR + 6) * len(rows) + 16 * len(notes)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
            'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        ),
        '<text x="10" y="22" font-size="14">Latency of a quiet tenant, by tier, without and beside a flood</text>',
    ]
    for at, row in enumerate(rows):
        y = 40 + at * (BAR + 6)
        tone = next(tone for name, tone in _TONES.items() if name in row["what"])
        width = max(1.0, row["value"] / longest * (WIDTH - LEFT - RIGHT))
        parts.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(row["what"])}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{tone}"/>')
        parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{row["value"]:,.0f} ms</text>')
    for at, line in enumerate(notes):
        y = height - 16 * (len(notes) - at) + 6
        parts.append(f'<text x="10" y="{y}" font-size="10" fill="#555">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(draw(json.loads(source.read_text())), "utf-8")
