"""A bounded table of which each tenant has its share: where there is no room, the tenant that holds most makes it."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

TenantKey = tuple[str, str]
"""(tenant, name)."""
V = TypeVar("V")
_SPARE_ROOM = 16
"""A full table is emptied by this part at once, so that making room costs little per entry."""


class _Entry(NamedTuple, Generic[V]):
    value: V
    size: int


class _Share(Generic[V]):
    """The entries of one tenant, oldest first; those that are worth least apart."""

    __slots__ = ("entries", "least", "size")

    def __init__(self) -> None:
        self.entries: OrderedDict[str, _Entry[V]] = OrderedDict()
        self.least: OrderedDict[str, _Entry[V]] = OrderedDict()
        self.size = 0

    @property
    def count(self) -> int:
        return len(self.entries) + len(self.least)


class TenantShares(Generic[V]):
    """At most ``max_count`` entries of ``max_bytes`` together.

    So what one tenant puts in never takes the place of another's that holds less. Within a tenant those that are worth
    least go first, then the oldest.
    """

    def __init__(self, max_count: int, max_bytes: int = 1 << 62) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._shares: dict[str, _Share[V]] = {}
        self.count = 0
        self.size = 0

    def get(self, key: TenantKey) -> V | None:
        share = self._shares.get(key[0])
        entry = (share.entries.get(key[1]) or share.least.get(key[1])) if share else None
        return entry.value if entry else None

    def put(self, key: TenantKey, value: V, size: int = 0, *, least: bool = False) -> list[V]:
        """Keep ``value``, in the place of what the key had, and give what had to go for it."""
        share = self._shares.setdefault(key[0], _Share())
        table, other = (share.least, share.entries) if least else (share.entries, share.least)
        before = table.get(key[1]) or other.pop(key[1], None)
        table[key[1]] = _Entry(value, size)
        grown = size - (before.size if before else 0)
        share.size += grown
        self.size += grown
        self.count += before is None
        if self.count <= self._max_count and self.size <= self._max_bytes:
            return []
        gone = self._shrink(lambda share: share.count, lambda: self.count, self._max_count)
        return gone + self._shrink(lambda share: share.size, lambda: self.size, self._max_bytes)

    def pop(self, key: TenantKey) -> V | None:
        share = self._shares.get(key[0])
        if share is None:
            return None
        entry = share.entries.pop(key[1], None) or share.least.pop(key[1], None)
        return self._dropped(key[0], share, entry) if entry else None

    def _shrink(self, held: Callable[[_Share[V]], int], total: Callable[[], int], most: int) -> list[V]:
        """Drop entries of whoever holds most, until there is spare room."""
        if total() <= most:
            return []
        gone: list[V] = []
        largest = [(-held(share), tenant) for tenant, share in self._shares.items()]
        heapq.heapify(largest)
        while total() > most - most // _SPARE_ROOM:
            tenant = largest[0][1]
            share = self._shares[tenant]
            _, entry = (share.least or share.entries).popitem(last=False)
            gone.append(self._dropped(tenant, share, entry))
            if share.count:
                heapq.heapreplace(largest, (-held(share), tenant))
            else:
                heapq.heappop(largest)
        return gone

    def _dropped(self, tenant: str, share: _Share[V], entry: _Entry[V]) -> V:
        share.size -= entry.size
        self.size -= entry.size
        self.count -= 1
        if not share.count:
            del self._shares[tenant]
        return entry.value
