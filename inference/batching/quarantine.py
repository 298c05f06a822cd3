"""Tenants whose requests keep breaking the forward pass are refused for a while. Pure; the clock is the caller's."""

from __future__ import annotations

from collections import OrderedDict, deque

STRIKES = 3
WINDOW_S = 600.0
HOLD_S = 600.0
MAX_TENANTS = 4096
"""Tenants remembered; beyond it the one that struck longest ago is forgotten."""


class Quarantine:
    """``strikes`` faults of one tenant within ``window_s`` seconds keep it out for ``hold_s`` seconds."""

    def __init__(self, *, strikes: int = STRIKES, window_s: float = WINDOW_S, hold_s: float = HOLD_S) -> None:
        self._strikes = strikes
        self._window_s = window_s
        self._hold_s = hold_s
        self._faults: OrderedDict[str, deque[float]] = OrderedDict()
        self._until: OrderedDict[str, float] = OrderedDict()

    def strike(self, tenant: str, now: float) -> None:
        """Count a fault that one of the tenant's requests caused at ``now`` (seconds of any steady clock)."""
        faults = self._faults.setdefault(tenant, deque(maxlen=self._strikes))
        self._faults.move_to_end(tenant)
        faults.append(now)
        if len(faults) == self._strikes and now - faults[0] <= self._window_s:
            self._until[tenant] = now + self._hold_s
            del self._faults[tenant]
        for table in (self._faults, self._until):
            while len(table) > MAX_TENANTS:
                table.popitem(last=False)

    def left(self, tenant: str, now: float) -> float:
        """Seconds until the tenant may come back; 0 where it is not kept out."""
        left = self._until.get(tenant, now) - now
        if left <= 0:
            self._until.pop(tenant, None)
            return 0.0
        return left

    def count(self, now: float) -> int:
        """Number of tenants that are kept out."""
        return sum(until > now for until in self._until.values())
