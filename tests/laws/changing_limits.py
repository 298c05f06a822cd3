"""Limits of every level, meter and unit, and what they may be changed to."""

from __future__ import annotations

from typing import Any

from pipeline.events.control import Limit

MODELS = ("glossary", "elsewhere")
MARGIN = 25
LEVELS = ("organisation", "tenant", "model", "principal", "key")
"""In the order in which they are weighed."""
LIMITS: dict[str, tuple[Limit, ...]] = {
    "organisation": (Limit(id="running", meter="open", amount=3),),
    "tenant": (
        Limit(id="tpm", meter="rate", unit="tokens", amount=120),
        Limit(id="spent", meter="budget", unit="cost", amount=300, period="day"),
    ),
    "model": (Limit(id="written", meter="budget", unit="output_tokens", amount=80, period="day"),),
    "principal": (
        Limit(id="often", meter="window", amount=3),
        Limit(id="read", meter="rate", unit="input_tokens", amount=120, burst=90),
    ),
    "key": (Limit(id="calls", meter="budget", amount=6, period_s=3600),),
}
PLACES = [(level, limit.id) for level in LEVELS for limit in LIMITS[level]]
PERIODS: dict[str, list[dict[str, Any]]] = {
    "rate": [{"period_s": seconds} for seconds in (1, 7, 60, 3600)],
    "window": [{"period_s": seconds} for seconds in (1, 60, 3600)],
    "budget": [{"period": "day"}, {"period": "week"}, {"period": "month"}, {"period": None, "period_s": 3600}],
    "open": [{}],
}
