"""Which tokens of which requests the next step computes, and in which blocks. Pure integer arithmetic, no clock.

Continuous batching (Yu et al., OSDI 2022): requests join and leave between steps. A step computes one token for each
answer first, then prompts in chunks, up to a budget of tokens (Sarathi-Serve, Agrawal et al., OSDI 2024). Who goes
next is decided by virtual token counters (``fairness``) alone: never by what a cache holds, which would let
one tenant see another's prompts in the order of answers (PromptPeek, NDSS 2025). Where blocks run out, the newest
request of the most served tenant gives up its own and is computed again later; so does, where all slots are taken,
one of a tenant that holds more than its equal part of them, for one that holds less.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from inference.batching.blocks import BlockPool, BlockTable, NoBlocks
from inference.batching.fairness import INPUT_PRICE, OUTPUT_PRICE, UNIT, WEIGHT, VirtualCounters
from inference.ports import ScheduledTokens

MAX_OVERFLOW = 4
"""No more than this times ``max_waiting`` wait, however many tenants come for their part."""


@dataclass(slots=True)
class _Job:
    tenant: str
    tokens: Sequence[int]
    """Grows as tokens are drawn; the caller's list, read only here."""
    root: bytes
    weight: int
    arrived: int
    table: BlockTable = field(default_factory=lambda: BlockTable(b""))
    fed: int = 0
    charged: bool = False
    admitted: int = -1

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.fed


@dataclass(slots=True)
class SchedulerTotals:
    """Totals since the start: tokens computed, prompt tokens found in the cache, requests put back."""

    computed: int = 0
    reused: int = 0
    preempted: int = 0


class QueueFull(Exception):
    """The waiting queue is at its bound; try later or elsewhere."""


class Scheduler:
    """Waiting queues, running set and block tables of one engine.

    At most ``slots`` requests run, a step computes at most ``budget`` tokens (at least one for each running request),
    at most ``max_waiting`` requests wait (more only for
    tenants that hold less than their part of the queue). Every request must fit ``pool`` alone.
    """

    def __init__(self, *, slots: int, budget: int, max_waiting: int, pool: BlockPool) -> None:
        if slots < 1 or budget < slots or max_waiting < 0:
            raise ValueError("expected slots >= 1, budget >= slots, max_waiting >= 0")
        self.pool, self.counters, self.work = pool, VirtualCounters(), SchedulerTotals()
        self.slots = self._most_slots = slots
        self.budget = self._most_budget = budget
        self._max_waiting = max_waiting
        self._waiting: dict[str, deque[str]] = {}
        self._jobs: dict[str, _Job] = {}
        self._running: dict[str, None] = {}
        self._arrivals = self._admissions = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._jobs) - len(self._running)

    def add(
        self, request_id: str, tenant: str, tokens: Sequence[int], *, root: bytes = b"", weight: int = WEIGHT
    ) -> None:
        """Queue a request; raises ``QueueFull``, or ``KeyError`` for an id already here.

        ``tokens`` is read again at every step. An empty ``root`` keeps the request out of the prefix cache.
        """
        if request_id in self._jobs:
            raise KeyError(request_id)
        if self._full_for(tenant):
            raise QueueFull
        self.counters.enter(tenant)
        self._arrivals += 1
        self._jobs[request_id] = _Job(tenant, tokens, root, weight, self._arrivals)
        self._waiting.setdefault(tenant, deque()).append(request_id)

    def _full_for(self, tenant: str) -> bool:
        """Whether the queue takes no more of a tenant: one that floods it leaves the others their equal parts."""
        beyond = self.waiting - max(0, self.slots - self.running)
        if beyond < self._max_waiting:
            return False
        part = self._max_waiting // self.counters.active_with(tenant)
        return len(self._waiting.get(tenant, ())) >= part or beyond >= MAX_OVERFLOW * self._max_waiting

    def remove(self, request_id: str, *, spoiled: bool = False) -> None:
        """Forget a request and give up its blocks; ``spoiled`` keeps those it named from being found again."""
        job = self._jobs.pop(request_id)
        if request_id in self._running:
            del self._running[request_id]
        else:
            self._dequeue(job.tenant, request_id)
        self.pool.release(job.table, spoiled=spoiled)
        self.counters.leave(job.tenant)

    def plan(self) -> tuple[ScheduledTokens, ...]:
        """Admit what fits, then share the step's budget: one token for each answer, then prompts.

        Prompts are cut to what is left of the budget, those of the least served tenant first. ``pool.moves`` must be
        carried out before the feeds are computed.
        """
        while self._waiting and self._admit():
            pass
        for request_id in list(self._running):
            if request_id in self._running:
                self._grow(request_id)
        counts = dict.fromkeys(self._running, 1)
        left = self.budget - self.running
        reading = [name for name in self._running if self._jobs[name].pending > 1]
        reading.sort(key=lambda name: self.counters[self._jobs[name].tenant])
        for name in reading:
            extra = min(left, self._jobs[name].pending - 1)
            counts[name] += extra
            left -= extra
        return tuple(self._feed(name, count) for name, count in counts.items())

    def fed(self, feed: ScheduledTokens, *, drawn: bool) -> None:
        """Record that a planned feed was computed, and whether a token is drawn after it."""
        job = self._jobs[feed.request_id]
        job.fed += feed.count
        self.work.computed += feed.count
        if job.root and job.fed // self.pool.size > len(job.table.keys):
            self.pool.name_full(job.table, job.tokens[: job.fed])
        if drawn:
            self.counters.charge(job.tenant, OUTPUT_PRICE, job.weight)

    def shrink(self) -> bool:
        """Halve what a step may hold, after memory ran out; False where it is at its least already."""
        if self.running <= 1 and self.budget <= 1:
            return False
        self.slots = max(1, self.running // 2)
        self.budget = max(self.slots, self.budget // 2)
        while self.running > self.slots:
            self._put_back(next(reversed(self._running)))
        return True

    def grow_back(self) -> None:
        """One slot and a share of the budget more, towards what it was before ``shrink``."""
        self.slots = min(self._most_slots, self.slots + 1)
        self.budget = max(self.slots, min(self._most_budget, self.budget * 2))

    def queue_position(self, request_id: str) -> int | None:
        """How many waiting requests go before this one by the counters of now; None where it does not wait."""
        if request_id not in self._jobs or request_id in self._running:
            return None
        queues = {tenant: iter(queue) for tenant, queue in self._waiting.items()}
        # a heap, as this is asked for each that comes, and a flood comes from many tenants
        least = [(self.counters[tenant], tenant) for tenant in queues]
        heapify(least)
        ahead = 0
        while least:
            virtual, tenant = least[0]
            chosen = next(queues[tenant], None)
            if chosen is None:
                heappop(least)
                continue
            if chosen == request_id:
                break
            ahead += 1
            job = self._jobs[chosen]
            price = 0 if job.charged else INPUT_PRICE * len(job.tokens)
            heapreplace(least, (virtual + price * UNIT * WEIGHT // job.weight, tenant))
        return ahead

    def _admit(self) -> bool:
        tenant = self.counters.least(self._waiting)
        if self.running >= self.slots and not self._make_room(tenant):
            return False
        request_id = self._waiting[tenant][0]
        job = self._jobs[request_id]
        table = self.pool.match(job.root, job.tokens) if job.root else BlockTable(job.root)
        # a block to grow into for each that runs, or the newcomer would soon be put back
        need = self.pool.needed(len(job.tokens) + 1) - len(table.blocks) + self.running
        if self.running and self.pool.available < need:
            self.pool.release(table)
            return False
        job.fed = self.pool.fork(table, job.tokens) if job.root else 0
        job.table = table
        self.pool.extend(table, len(job.tokens))
        self._start(request_id, job)
        return True

    def _start(self, request_id: str, job: _Job) -> None:
        self._dequeue(job.tenant, request_id)
        self._running[request_id] = None
        self._admissions += 1
        job.admitted = self._admissions
        self.work.reused += job.fed
        if not job.charged:
            self.counters.charge(job.tenant, INPUT_PRICE * job.pending, job.weight)
            job.charged = True

    def _make_room(self, tenant: str) -> bool:
        """Put back a request of who holds more than an equal part of the slots, if ``tenant`` holds less."""
        part = max(1, self.slots // self.counters.active)
        held: dict[str, int] = {}
        for name in self._running:
            owner = self._jobs[name].tenant
            held[owner] = held.get(owner, 0) + 1
        over = [owner for owner, count in held.items() if count > part]
        if held.get(tenant, 0) >= part or not over:
            return False
        self._put_back(self._newest_of(self.counters.most(over)))
        return True

    def _grow(self, request_id: str) -> None:
        """Blocks up to the next token; others, or the request itself, are put back where there are none."""
        job = self._jobs[request_id]
        while request_id in self._running:
            try:
                self.pool.extend(job.table, job.fed + 1)
                break
            except NoBlocks:
                owners = {self._jobs[name].tenant for name in self._running}
                self._put_back(self._newest_of(self.counters.most(owners)))

    def _newest_of(self, tenant: str) -> str:
        ours = [name for name in self._running if self._jobs[name].tenant == tenant]
        return max(ours, key=lambda name: self._jobs[name].admitted)

    def _put_back(self, request_id: str) -> None:
        job = self._jobs[request_id]
        del self._running[request_id]
        self.pool.release(job.table)
        job.fed = 0
        self.work.preempted += 1
        self._waiting.setdefault(job.tenant, deque()).appendleft(request_id)

    def _feed(self, request_id: str, count: int) -> ScheduledTokens:
        job = self._jobs[request_id]
        end = job.fed + count
        blocks = tuple(job.table.blocks[: self.pool.needed(end)])
        return ScheduledTokens(request_id, job.fed, count, end == len(job.tokens), blocks)

    def _dequeue(self, tenant: str, request_id: str) -> None:
        self._waiting[tenant].remove(request_id)
        if not self._waiting[tenant]:
            del self._waiting[tenant]
