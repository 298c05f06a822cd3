"""Calls that wait for an answer, by tenant: one tenant, however many it makes, leaves room for the others."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from pipeline.gateway.refusals import because


class TenantCalls:
    """At most ``most`` calls. A tenant may have as many as are still free, so one alone gets half of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_tenant: Counter[str] = Counter()
        self._total = 0

    @contextlib.contextmanager
    def waiting(self, tenant: str) -> Iterator[None]:
        """Count a call while it waits. Raises Refusal where the tenant may have no more."""
        if self._by_tenant[tenant] >= self._most - self._total:
            raise because("busy", retry_after_ms=1000)
        self._by_tenant[tenant] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._by_tenant[tenant] -= 1
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]
