"""The requests that wait: one queue for each tenant, served in the order of virtual counters. Pure, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from inference.batching.blocks import BlockTable
from inference.batching.fairness import INPUT_PRICE, UNIT, WEIGHT, VirtualCounters

MAX_OVERFLOW = 4
"""No more than this times ``max_waiting`` wait, however many tenants come for their part."""


@dataclass(eq=False, slots=True)
class Job:
    """One request in the scheduler. ``tokens`` is the caller's list, read only here; it grows as tokens are drawn."""

    request_id: str
    tenant: str
    tokens: Sequence[int]
    root: bytes
    weight: int
    table: BlockTable = field(default_factory=lambda: BlockTable(b""))
    computed: int = 0
    """Tokens that are in the cache."""
    charged: bool = False
    """True once its prompt was charged to the tenant; a preempted request is not charged again."""
    admission: int = -1
    """Number of its latest admission; the largest is the newest."""

    @property
    def pending(self) -> int:
        """Tokens that are known and not computed."""
        return len(self.tokens) - self.computed


class WaitingQueues:
    """Queues of at most ``max_waiting`` jobs, more only of tenants that hold less than their part."""

    def __init__(self, counters: VirtualCounters, max_waiting: int) -> None:
        self._counters = counters
        self._max_waiting = max_waiting
        self._queues: dict[str, deque[Job]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def is_full_for(self, tenant: str, free_slots: int) -> bool:
        """True where no more of a tenant may wait: one that floods the queue leaves the others their equal parts."""
        queued = self._count - max(0, free_slots)
        if queued < self._max_waiting:
            return False
        part = self._max_waiting // self._counters.active_with(tenant)
        return len(self._queues.get(tenant, ())) >= part or queued >= MAX_OVERFLOW * self._max_waiting

    def append(self, job: Job) -> None:
        """Put a new job at the end of its tenant's queue."""
        self._queues.setdefault(job.tenant, deque()).append(job)
        self._count += 1

    def put_back(self, job: Job) -> None:
        """Put a preempted job at the head of its tenant's queue."""
        self._queues.setdefault(job.tenant, deque()).appendleft(job)
        self._count += 1

    def remove(self, job: Job) -> None:
        """Take a job out."""
        queue = self._queues[job.tenant]
        queue.remove(job)
        self._count -= 1
        if not queue:
            del self._queues[job.tenant]

    def next(self) -> Job:
        """The first job of the least served tenant; at least one job waits."""
        return self._queues[self._counters.least(self._queues)][0]

    def ahead_of(self, request_id: str) -> int:
        """Number of waiting jobs that go before this one by the counters of now."""
        queues = {tenant: iter(queue) for tenant, queue in self._queues.items()}
        # a heap, as this is asked for each request that comes, and a flood comes from many tenants
        least = [(self._counters[tenant], tenant) for tenant in queues]
        heapify(least)
        ahead = 0
        while least:
            virtual, tenant = least[0]
            job = next(queues[tenant], None)
            if job is None:
                heappop(least)
                continue
            if job.request_id == request_id:
                break
            ahead += 1
            price = 0 if job.charged else INPUT_PRICE * len(job.tokens)
            heapreplace(least, (virtual + price * UNIT * WEIGHT // job.weight, tenant))
        return ahead
