"""The open connections of a gateway, by the address that they come from: who holds most gives way to who comes.

An address may hold so many. Where it has them, or the gateway has as many as it can, connections that wait for a
request are closed: of the address with the most first, and there the one that has waited longest. Only where none
waits is one that arrives turned away.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

_SPARE_ROOM = 16
"""Room is made for this part of a bound at once, so that looking for who waits costs little per connection."""
_NETWORK_BITS = 64
"""One caller has all IPv6 addresses that begin so."""


class Peer(Protocol):
    """A connection as it is counted."""

    @property
    def address(self) -> str: ...
    @property
    def idle_since(self) -> float | None:
        """When it began to wait for a request; None while it has one."""

    def reap(self) -> None:
        """Close it."""


class OpenConnections:
    """At most ``most`` connections, and ``per_address`` of one address."""

    def __init__(self, most: int, per_address: int, changed: Callable[[int, int], None]) -> None:
        self._most = most
        self._per_address = min(most, per_address)
        self._changed = changed
        """Hears the number of connections, and how many were closed for want of room."""
        self._by_address: dict[str, dict[Peer, None]] = {}
        """Of each address, the oldest connection first."""
        self.count = 0

    def add(self, peer: Peer) -> bool:
        """Count one that arrives and make room for it; False where there is none."""
        same = self._by_address.setdefault(peer.address, {})
        same[peer] = None
        self.count += 1
        reaped = self._reap([peer.address], len(same) - self._per_address, self._per_address, peer)
        reaped += self._reap(self._by_address, self.count - self._most, self._most, peer)
        self._changed(self.count, reaped)
        return len(same) <= self._per_address and self.count <= self._most

    def remove(self, peer: Peer) -> None:
        """Forget a connection that has ended, or is about to."""
        same = self._by_address.get(peer.address)
        if same is None or peer not in same:
            return
        del same[peer]
        self.count -= 1
        if not same:
            del self._by_address[peer.address]
        self._changed(self.count, 0)

    def _reap(self, addresses: Iterable[str], over: int, bound: int, arriving: Peer) -> int:
        """Close connections that wait, where there are ``over`` too many; gives how many."""
        if over <= 0:
            return 0
        wanted, reaped = over + bound // _SPARE_ROOM, 0
        largest = [(-len(self._by_address[address]), address) for address in addresses]
        heapq.heapify(largest)
        waiting: dict[str, deque[Peer]] = {}
        while largest and reaped < wanted:
            held, address = largest[0]
            if address not in waiting:
                waiting[address] = _longest_first(peer for peer in self._by_address[address] if peer is not arriving)
            if not waiting[address]:
                heapq.heappop(largest)
                continue
            peer = waiting[address].popleft()
            self.remove(peer)
            peer.reap()
            reaped += 1
            heapq.heapreplace(largest, (held + 1, address))
        return reaped


def _longest_first(peers: Iterable[Peer]) -> deque[Peer]:
    idle = [(since, index, peer) for index, peer in enumerate(peers) if (since := peer.idle_since) is not None]
    return deque(peer for _, _, peer in sorted(idle, key=lambda each: each[:2]))


def address_of(host: object) -> str:
    """Give the address that a peer counts under: IPv4 as it is, IPv6 by its network; ``-`` for none."""
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return "-"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _NETWORK_BITS), strict=False))
