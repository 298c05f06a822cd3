"""Callers are told what is left of their limits: in headers of each answer, and by ``GET /v1/quota``.

Every value was true as of a decision. The gateway keeps the newest one that came by and works out none itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from pipeline.events.limits import LimitState, QuotaState, ScopedLimit

HEADERS = "x-ratelimit"
_TOLD = ("requests", "tokens")
"""Units that stock clients read."""
_MOST = 100_000


class SeenLimits:
    """The newest state of each limit that answers told, those not told for longest out first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._seen: OrderedDict[str, tuple[int, LimitState]] = OrderedDict()

    def add(self, quota: QuotaState) -> None:
        """Keep what is newer than what was kept."""
        for state in quota.limits:
            before = self._seen.get(state.name)
            if before is None or before[0] <= quota.time:
                self._seen[state.name] = quota.time, state
                self._seen.move_to_end(state.name)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def newest(self, scoped: ScopedLimit) -> tuple[int, LimitState] | None:
        """Give time and state of a limit; None where none came by since it has its amount."""
        seen = self._seen.get(scoped.name)
        return seen if seen is not None and seen[1].amount == scoped.limit.amount else None


def limit_headers(quota: QuotaState | None) -> dict[str, str]:
    """Give the headers that stock clients read: of each unit, the limit with the least left.

    Limits of what is open at once are left out: no time restores them, so a client could not wait for it.
    """
    headers: dict[str, str] = {}
    if quota is None:
        return headers
    for unit in _TOLD:
        held = [state for state in quota.limits if state.reset_ms >= 0 and state.name.endswith(f"|{unit}")]
        if held:
            tightest = min(held, key=lambda state: (state.remaining, -state.reset_ms))
            headers[f"{HEADERS}-limit-{unit}"] = str(tightest.amount)
            headers[f"{HEADERS}-remaining-{unit}"] = str(tightest.remaining)
            headers[f"{HEADERS}-reset-{unit}"] = duration(tightest.reset_ms)
    return headers


def duration(milliseconds: int) -> str:
    """Write a duration as OpenAI does, and Go: ``12ms``, ``1.5s``, ``6m0s``, ``26h0m3s``."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds, fraction = divmod(rest, 1000)
    text = f"{seconds}.{fraction:03d}".rstrip("0") + "s" if fraction else f"{seconds}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def quota_document(limits: Iterable[ScopedLimit], seen: SeenLimits) -> dict[str, Any]:
    """Give the body of ``GET /v1/quota``; times in Unix ms, null where no answer has told the value yet."""
    return {"object": "list", "data": [_row(scoped, seen) for scoped in limits]}


def _row(scoped: ScopedLimit, seen: SeenLimits) -> dict[str, Any]:
    limit = scoped.limit
    row: dict[str, Any] = {
        "level": scoped.level,
        "id": limit.id,
        "unit": limit.unit,
        "meter": limit.meter,
        "limit": limit.amount,
        "period_s": None if limit.meter == "open" or limit.period else limit.period_s,
    }
    if limit.period:
        row["period"] = limit.period
    if scoped.model:
        row["model"] = scoped.model
    newest = seen.newest(scoped)
    if newest is None:
        return {**row, "remaining": None, "reset": None, "as_of": None}
    as_of, state = newest
    reset = None if state.reset_ms < 0 else as_of + state.reset_ms
    return {**row, "remaining": state.remaining, "reset": reset, "as_of": as_of}
