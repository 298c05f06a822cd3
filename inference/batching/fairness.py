"""Virtual token counters: the service that each tenant has had. Pure integer arithmetic, no clock.

Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): a tenant's counter grows by the price of the
tokens served to it, divided by its weight; the waiting tenant with the smallest counter goes next; one that returns
after idling is lifted to the smallest active counter, so credit cannot be hoarded. Between two tenants that both wait,
service differs by at most twice the price of what one batch can hold.
"""

from __future__ import annotations

from collections.abc import Iterable

INPUT_PRICE = 1
OUTPUT_PRICE = 2
"""Price of a token in virtual units; an output token costs a pass of its own."""
WEIGHT = 100
"""The weight of an ordinary plan; a tenant of weight 200 gets twice the service of one of weight 100."""
UNIT = 1_000_000
"""A counter's resolution: the price of one virtual unit at ``WEIGHT``."""
LEAST_SHARE = 20
"""A tenant at full risk keeps this part of a hundred of its weight: slowed, never starved."""


def effective_weight(weight: int, risk: float) -> int:
    """The plan's weight lowered by risk, 0 (none) to 1 (certain): at most to a fifth, at least 1."""
    kept = round(weight * (1.0 - risk * (100 - LEAST_SHARE) / 100))
    return max(1, kept)


class VirtualCounters:
    """Counters of the tenants that have requests here, and debts of those that left a moment ago."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._active: dict[str, int] = {}

    def __getitem__(self, tenant: str) -> int:
        return self._counters.get(tenant, 0)

    @property
    def active(self) -> int:
        """Tenants that have a request waiting or running."""
        return len(self._active)

    def active_with(self, tenant: str) -> int:
        """The same, were ``tenant`` to join."""
        return len(self._active) + (tenant not in self._active)

    def enter(self, tenant: str) -> None:
        """A request of ``tenant`` arrived."""
        if tenant not in self._active:
            floor = min((self._counters[other] for other in self._active), default=0)
            self._counters[tenant] = max(self._counters.get(tenant, 0), floor)
        self._active[tenant] = self._active.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        """A request of ``tenant`` ended."""
        self._active[tenant] -= 1
        if not self._active[tenant]:
            del self._active[tenant]
            self._forget_idle()

    def charge(self, tenant: str, price: int, weight: int) -> None:
        """Count service of ``price`` virtual units at a weight."""
        self._counters[tenant] += price * UNIT * WEIGHT // weight

    def least(self, tenants: Iterable[str]) -> str:
        """The least served; ties go by name, so the order is the same on every worker."""
        return min(tenants, key=lambda tenant: (self[tenant], tenant))

    def most(self, tenants: Iterable[str]) -> str:
        """The most served."""
        return max(tenants, key=lambda tenant: (self[tenant], tenant))

    def _forget_idle(self) -> None:
        """Drop counters that a returning tenant would be lifted above anyway; bounds memory."""
        floor = min((self._counters[name] for name in self._active), default=None)
        self._counters = {
            name: count
            for name, count in self._counters.items()
            if name in self._active or (floor is not None and count > floor)
        }
